/*
 * A program that is over before anybody has looked: opens a libssl, makes one call and ends. What it needs is
 * declared here, so that no headers are.
 *
 * Usage: brief LIBSSL PORT
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1003\r\n\r\n"

int main(int count, char **arguments)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char request[sizeof(REQUEST) - 1 + 1003], answer[4096];
	int port, got, all = 0, connection = socket(AF_INET, SOCK_STREAM, 0);
	void *library, *ssl;

	if (count != 3 || sscanf(arguments[2], "%d", &port) != 1)
		return 2;
	library = dlopen(arguments[1], RTLD_NOW);
	if (!library)
		return 3;
#define CALL(result, name, ...) ((result (*)(__VA_ARGS__))dlsym(library, #name))
	address.sin_port = htons(port);
	if (connect(connection, (struct sockaddr *)&address, sizeof(address)))
		return 4;
	ssl = CALL(void *, SSL_new, void *)(CALL(void *, SSL_CTX_new, void *)(CALL(void *, TLS_client_method, void)()));
	CALL(int, SSL_set_fd, void *, int)(ssl, connection);
	if (CALL(int, SSL_connect, void *)(ssl) != 1)
		return 5;
	memcpy(request, REQUEST, sizeof(REQUEST) - 1);
	memset(request + sizeof(REQUEST) - 1, 'x', 1000);
	memcpy(request + sizeof(request) - 3, "END", 3);
	if (CALL(int, SSL_write, void *, const void *, int)(ssl, request, sizeof(request)) != sizeof(request))
		return 6;
	while (all < 3 || memcmp(answer + all - 3, "END", 3)) {
		got = CALL(int, SSL_read, void *, void *, int)(ssl, answer + all, sizeof(answer) - all);
		if (got <= 0)
			return 7;
		all += got;
	}
	return 0;
}
