/*
 * A process that makes TLS calls and goes, in one of the ways that processes go. Both ends of each connection are
 * in here, joined by memory BIOs. libssl is opened at run time: no headers are needed.
 *
 * Usage: churn LIBSSL CERTIFICATE KEY WAY CALLS SIZE. Says "hold PID" and waits for a line on standard input before
 * its first call, as every child that it forks does; says "moved PID BYTES" (written and read) when it has made CALLS
 * writes of SIZE bytes and read them at the other end. Then it goes: see `ways` below.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

static void open_library(const char *path)
{
	void *crypto = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_GLOBAL);
	void *ssl = dlopen(path, RTLD_NOW);

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

static void *client_context, *server_context;
static int calls, size;

struct ends {
	void *client, *server;
};

static struct ends join_ends(void)
{
	struct ends ends = { SSL_new(client_context), SSL_new(server_context) };
	void *there = BIO_new(BIO_s_mem()), *back = BIO_new(BIO_s_mem());

	SSL_set_connect_state(ends.client);
	SSL_set_accept_state(ends.server);
	BIO_up_ref(there);
	BIO_up_ref(back);
	SSL_set_bio(ends.client, back, there);
	SSL_set_bio(ends.server, there, back);
	while (SSL_do_handshake(ends.client) != 1 || SSL_do_handshake(ends.server) != 1)
		SSL_do_handshake(ends.server);
	return ends;
}

/* Bytes written and read. */
static long long move(struct ends ends, int count)
{
	char *buffer = calloc(1, size);
	long long moved = 0;

	for (; count > 0; count--) {
		moved += SSL_write(ends.client, buffer, size);
		for (int got = 0; got < size;)
			got += SSL_read(ends.server, buffer + got, size - got);
		moved += size;
	}
	free(buffer);
	return moved;
}

static void free_ends(struct ends ends)
{
	SSL_free(ends.client);
	SSL_free(ends.server);
}

static void hold(void)
{
	char byte = 0;

	dprintf(STDOUT_FILENO, "hold %d\n", getpid());
	/* Byte by byte: a child reads on from here. */
	while (byte != '\n' && read(STDIN_FILENO, &byte, 1) == 1)
		;
}

static void report(long long moved)
{
	dprintf(STDOUT_FILENO, "moved %d %lld\n", getpid(), moved);
}

/* One connection after the other, each freed: the allocator hands the same memory out again. */
static void go_tidy(void)
{
	long long moved = 0;

	for (int left = 10; left > 0; left--) {
		struct ends ends = join_ends();

		moved += move(ends, calls / 10);
		free_ends(ends);
	}
	report(moved);
}

static void go_untidy(void)
{
	report(move(join_ends(), calls));
}

static void go_killed(void)
{
	report(move(join_ends(), calls));
	raise(SIGKILL);
}

static void *work(void *moved)
{
	struct ends ends = join_ends();

	*(long long *)moved = move(ends, calls / 4);
	free_ends(ends);
	return NULL;
}

static void go_with_threads(void)
{
	pthread_t threads[4];
	long long moved[4], all = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, work, &moved[i]);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		all += moved[i];
	}
	report(all);
}

/* A child goes on with its parent's connection, and then the parent does. */
static void go_with_child(void)
{
	struct ends ends = join_ends();
	long long moved = move(ends, calls / 4);
	pid_t child = fork();

	if (!child) {
		hold();
		report(move(ends, calls / 2));
		_exit(0);
	}
	waitpid(child, NULL, 0);
	report(moved + move(ends, calls / 4));
	free_ends(ends);
}

/* One call, and the rest when the sensor has been told to ignore the connection: those count for nothing. */
static void go_ignored(void)
{
	struct ends ends = join_ends();

	report(move(ends, 1));
	hold();
	move(ends, calls);
	free_ends(ends);
}

static const struct {
	const char *name;
	void (*go)(void);
} ways[] = {
	{ "tidy", go_tidy },	    { "untidy", go_untidy },   { "killed", go_killed }, { "threads", go_with_threads },
	{ "child", go_with_child }, { "ignored", go_ignored },
};

int main(int count, char **arguments)
{
	if (count != 7)
		return 2;
	calls = atoi(arguments[5]);
	size = atoi(arguments[6]);
	open_library(arguments[1]);
	client_context = SSL_CTX_new(TLS_client_method());
	server_context = SSL_CTX_new(TLS_server_method());
	if (SSL_CTX_use_certificate_file(server_context, arguments[2], 1) != 1 ||
	    SSL_CTX_use_PrivateKey_file(server_context, arguments[3], 1) != 1)
		return 3;
	hold();
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(ways[i].name, arguments[4]))
			ways[i].go();
	return 0;
}
