/*
 * A TLS client with OpenSSL linked into it: waits for a line, connects to 127.0.0.1:PORT, writes COUNT bytes and
 * reads as many back, by turns with SSL_write, SSL_write_ex, SSL_read and SSL_read_ex. Says how much it moved, waits
 * for another line, and leaves.
 */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void wait_for_a_line(void)
{
	char line[16];

	if (!fgets(line, sizeof(line), stdin))
		exit(9);
}

static SSL *connected(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	SSL *ssl = SSL_new(SSL_CTX_new(TLS_client_method()));

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		exit(2);
	SSL_set_fd(ssl, fd);
	if (SSL_connect(ssl) != 1)
		exit(3);
	return ssl;
}

static size_t write_some(SSL *ssl, const char *data, size_t size, int turn)
{
	size_t written = 0;

	if (turn % 2)
		written = SSL_write(ssl, data, (int)size);
	else
		SSL_write_ex(ssl, data, size, &written);
	if (written != size)
		exit(4);
	return written;
}

static size_t read_some(SSL *ssl, char *data, size_t size, int turn)
{
	size_t moved = 0;
	int result;

	if (turn % 3) {
		result = SSL_read(ssl, data, (int)size);
		moved = result > 0 ? (size_t)result : 0;
	} else {
		SSL_read_ex(ssl, data, size, &moved);
	}
	if (!moved)
		exit(5);
	return moved;
}

int main(int count, char **arguments)
{
	char data[7001];
	size_t wanted, written = 0, read = 0;
	SSL *ssl;

	if (count != 3)
		return 1;
	wait_for_a_line();
	ssl = connected(atoi(arguments[1]));
	wanted = strtoul(arguments[2], NULL, 10);
	for (int turn = 0; read < wanted; turn++) {
		if (written < wanted) {
			size_t left = wanted - written;

			for (size_t at = 0; at < sizeof(data); at++)
				data[at] = (char)(turn + at);
			written += write_some(ssl, data, left < sizeof(data) ? left : sizeof(data), turn);
		}
		while (read < written)
			read += read_some(ssl, data, sizeof(data), turn);
	}
	printf("{\"written\": %zu, \"read\": %zu}\n", written, read);
	fflush(stdout);
	SSL_shutdown(ssl);
	SSL_free(ssl);
	wait_for_a_line();
	return 0;
}
