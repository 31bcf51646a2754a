/*
 * A library that exports the functions that are probed, and does with them what real ones do seldom or
 * only in some build: call each other, jump into each other, call back, lie.
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
