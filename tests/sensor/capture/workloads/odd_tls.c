/*
 * A library that exports the functions that are probed, and does with them what real ones do seldom or
 * only in some build: call each other, jump into each other, call back, lie.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static jmp_buf escape;
static void (*callback)(void);

void odd_set_callback(void (*function)(void))
{
	callback = function;
}

void *SSL_new(void *context)
{
	(void)context;
	return malloc(64);
}

void SSL_free(void *ssl)
{
	free(ssl);
}

__attribute__((noinline)) int SSL_write_ex2(void *ssl, const void *data, size_t size, uint64_t flags, size_t *written)
{
	(void)ssl, (void)data, (void)flags;
	*written = size;
	return 1;
}

/* A jump, as compilers make one of it in OpenSSL 3.3 and later. Declared with the other's parameters,
 * because only then is the jump certain; the fifth is never looked at. */
int SSL_write_ex(void *ssl, const void *data, size_t size, uint64_t written, size_t *unused)
{
	(void)unused;
	__attribute__((musttail)) return SSL_write_ex2(ssl, data, size, 0, (size_t *)written);
}

/* A call, with something left to do after it. */
int SSL_write(void *ssl, const void *data, int size)
{
	size_t written = 0;

	return SSL_write_ex2(ssl, data, size, 0, &written) ? (int)written : -1;
}

/* Calls back in the middle, as a handshake does, and then reads. */
int SSL_read(void *ssl, void *data, int size)
{
	(void)ssl;
	if (callback)
		callback();
	memset(data, 'r', size);
	return size;
}

/* One that claims more than there was room for. */
__attribute__((noinline)) int SSL_read_ex(void *ssl, void *data, size_t size, size_t *got)
{
	(void)ssl, (void)data;
	if (size == 13)
		longjmp(escape, 1);
	*got = size + 1;
	return 1;
}

/* Leaves SSL_read_ex without returning from it, from far enough down that any later call is shallower. */
void odd_escape(void *ssl)
{
	char room[4096];
	char data[13];
	size_t got;

	asm volatile("" : : "r"(room) : "memory"); /* else the compiler saves the room */
	if (!setjmp(escape))
		SSL_read_ex(ssl, data, sizeof(data), &got);
}

/* What follows calls like any other program: the compiler, which sees that the functions above ignore their first
 * argument, would pass none. */
static int (*volatile do_read)(void *, void *, int) = SSL_read;
static int (*volatile do_write)(void *, const void *, int) = SSL_write;

#define STACK_SIZE (256 << 10)

static void *connections[2];
static char *stacks; /* the handler's, and above it the thread's */

static void interrupt(void)
{
	callback = NULL;
	raise(SIGUSR1);
}

static void on_signal(int number)
{
	char text[] = "from the handler";

	(void)number;
	do_write(connections[1], text, strlen(text));
}

static void *read_and_be_interrupted(void *argument)
{
	stack_t stack = { .ss_sp = stacks, .ss_size = STACK_SIZE };
	char data[100];

	(void)argument;
	sigaltstack(&stack, NULL);
	callback = interrupt;
	do_read(connections[0], data, sizeof(data));
	return NULL;
}

/* A signal in the middle of a read of 100 bytes, whose handler writes 16 bytes on the other connection, from a
 * stack of its own. It lies below the thread's: were it above, the kernel would take the read's return probe for
 * a dead one, and kill the process when it returns. */
void odd_signal(void *one, void *other)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	pthread_attr_t attributes;
	pthread_t thread;

	stacks = mmap(NULL, 2 * STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	connections[0] = one, connections[1] = other;
	sigaction(SIGUSR1, &action, NULL);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stacks + STACK_SIZE, STACK_SIZE);
	pthread_create(&thread, &attributes, read_and_be_interrupted, NULL);
	pthread_join(thread, NULL);
}

/* Writes from a file's page that this process has never touched. */
int odd_write_untouched(void *ssl, const char *path, int size)
{
	int fd = open(path, O_RDONLY);
	void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

	close(fd);
	return data == MAP_FAILED ? -1 : do_write(ssl, data, size);
}
