/*
 * Makes TLS calls as fast as it can and says what CPU they cost. Both ends in one thread, joined by memory
 * BIOs, so that nothing but libssl is measured. libssl is opened at run time: no headers are needed.
 *
 * Usage: tls_calls CERTIFICATE KEY SIZE. For each line "N" on standard input makes N writes and N reads of
 * SIZE bytes and prints "CPU_NS WALL_NS". A line "new" begins a new connection first.
 *
 * Or: tls_calls COUNT. So many processes map libssl and do nothing until standard input ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIBSSL(result, name, ...) static result (*name)(__VA_ARGS__)

LIBSSL(void *, TLS_client_method, void);
LIBSSL(void *, TLS_server_method, void);
LIBSSL(void *, SSL_CTX_new, void *);
LIBSSL(int, SSL_CTX_use_certificate_file, void *, const char *, int);
LIBSSL(int, SSL_CTX_use_PrivateKey_file, void *, const char *, int);
LIBSSL(void *, SSL_new, void *);
LIBSSL(void, SSL_free, void *);
LIBSSL(void, SSL_set_bio, void *, void *, void *);
LIBSSL(void, SSL_set_connect_state, void *);
LIBSSL(void, SSL_set_accept_state, void *);
LIBSSL(int, SSL_do_handshake, void *);
LIBSSL(int, SSL_read, void *, void *, int);
LIBSSL(int, SSL_write, void *, const void *, int);
LIBSSL(void *, BIO_new, void *);
LIBSSL(void *, BIO_s_mem, void);
LIBSSL(int, BIO_up_ref, void *);

static void open_library(void)
{
	void *crypto = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_GLOBAL);
	void *ssl = dlopen("libssl.so.3", RTLD_NOW);

	if (!crypto || !ssl) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
#define FIND(library, name) *(void **)&name = dlsym(library, #name)
	FIND(ssl, TLS_client_method), FIND(ssl, TLS_server_method), FIND(ssl, SSL_CTX_new);
	FIND(ssl, SSL_CTX_use_certificate_file), FIND(ssl, SSL_CTX_use_PrivateKey_file);
	FIND(ssl, SSL_new), FIND(ssl, SSL_free), FIND(ssl, SSL_set_bio);
	FIND(ssl, SSL_set_connect_state), FIND(ssl, SSL_set_accept_state), FIND(ssl, SSL_do_handshake);
	FIND(ssl, SSL_read), FIND(ssl, SSL_write);
	FIND(crypto, BIO_new), FIND(crypto, BIO_s_mem), FIND(crypto, BIO_up_ref);
}

static void *client, *server;

static void connect_ends(void *client_context, void *server_context)
{
	void *there = BIO_new(BIO_s_mem()), *back = BIO_new(BIO_s_mem());

	if (client) {
		SSL_free(client);
		SSL_free(server);
	}
	client = SSL_new(client_context);
	server = SSL_new(server_context);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	BIO_up_ref(there);
	BIO_up_ref(back);
	SSL_set_bio(client, back, there);
	SSL_set_bio(server, there, back);
	while (SSL_do_handshake(client) != 1 || SSL_do_handshake(server) != 1)
		SSL_do_handshake(server);
}

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int wait_in_processes(int count)
{
	char end;

	open_library();
	for (int i = 0; i < count; i++) {
		if (!fork()) {
			while (read(0, &end, 1) > 0)
				continue;
			_exit(0);
		}
	}
	puts("ready");
	fflush(stdout);
	while (wait(NULL) > 0)
		continue;
	return 0;
}

int main(int count, char **arguments)
{
	int size = count == 4 ? atoi(arguments[3]) : 0;
	char line[32], *buffer = calloc(1, size + 1);
	void *client_context, *server_context;

	if (count == 2)
		return wait_in_processes(atoi(arguments[1]));
	if (size <= 0)
		return 2;
	open_library();
	client_context = SSL_CTX_new(TLS_client_method());
	server_context = SSL_CTX_new(TLS_server_method());
	if (SSL_CTX_use_certificate_file(server_context, arguments[1], 1) != 1 ||
	    SSL_CTX_use_PrivateKey_file(server_context, arguments[2], 1) != 1)
		return 3;
	connect_ends(client_context, server_context);
	while (fgets(line, sizeof(line), stdin)) {
		long long cpu, wall;

		if (!strcmp(line, "new\n")) {
			connect_ends(client_context, server_context);
			continue;
		}
		cpu = now(CLOCK_PROCESS_CPUTIME_ID);
		wall = now(CLOCK_MONOTONIC);
		for (int left = atoi(line); left > 0; left--) {
			SSL_write(client, buffer, size);
			for (int got = 0; got < size;)
				got += SSL_read(server, buffer + got, size - got);
		}
		printf("%lld %lld\n", now(CLOCK_PROCESS_CPUTIME_ID) - cpu, now(CLOCK_MONOTONIC) - wall);
		fflush(stdout);
	}
	return 0;
}
