/* A process of milliseconds: connects to a local TLS server, writes a line, reads a line of the same length, ends.
 * With LIBRARY it loads that libssl at run time and uses it at once; linked with libssl.a it needs none.
 * Usage: brief_tls PORT SIZE [LIBRARY] */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef LINKED
#include <openssl/ssl.h>
#define FUNCTION(library, name) name
#else
#define FUNCTION(library, name) dlsym(library, #name)
#endif

static int connected(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

int main(int count, char **arguments)
{
	void *library = count > 3 ? dlopen(arguments[3], RTLD_NOW) : NULL;
	int size = atoi(arguments[2]), fd = connected(atoi(arguments[1])), done = 0;
	char *line = malloc(size);
	const void *(*method)(void) = (void *)FUNCTION(library, TLS_client_method);
	void *(*context_new)(const void *) = (void *)FUNCTION(library, SSL_CTX_new);
	void *(*ssl_new)(void *) = (void *)FUNCTION(library, SSL_new);
	int (*set_fd)(void *, int) = (void *)FUNCTION(library, SSL_set_fd);
	int (*handshake)(void *) = (void *)FUNCTION(library, SSL_connect);
	int (*write_to)(void *, const void *, int) = (void *)FUNCTION(library, SSL_write);
	int (*read_from)(void *, void *, int) = (void *)FUNCTION(library, SSL_read);
	void (*ssl_free)(void *) = (void *)FUNCTION(library, SSL_free);
	void *ssl = ssl_new(context_new(method()));

	if (fd < 0 || set_fd(ssl, fd) != 1 || handshake(ssl) != 1)
		return 1;
	memset(line, 'x', size);
	line[size - 1] = '\n';
	if (write_to(ssl, line, size) != size)
		return 2;
	while (done < size) {
		int got = read_from(ssl, line, size - done);

		if (got <= 0)
			return 3;
		done += got;
	}
	ssl_free(ssl);
	return 0;
}
