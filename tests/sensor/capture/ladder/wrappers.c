/*
 * The shape of OpenSSL's read and write functions: public ones that pass everything on to one internal
 * function, to be compiled by every compiler with every flag. FLAGS: as OpenSSL 3.3 and later have it.
 */
#include <stddef.h>
#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden"), noinline))

struct ssl {
	int (*move)(struct ssl *s, void *buffer, size_t size, size_t *moved);
	int state, result;
};

HIDDEN void complain(int why)
{
	static volatile int complaints[8];

	complaints[why]++;
}

HIDDEN int ssl_read_internal(struct ssl *s, void *buffer, size_t size, size_t *moved)
{
	if (!s->move) {
		complain(1);
		return -1;
	}
	if (s->state)
		return 0;
	s->result = s->move(s, buffer, size, moved);
	return s->result + s->state;
}

HIDDEN int ssl_peek_internal(struct ssl *s, void *buffer, size_t size, size_t *moved)
{
	if (!s->move) {
		complain(2);
		return -1;
	}
	return s->move(s, buffer, size, moved) + s->state;
}

#ifdef FLAGS
#define WITH_FLAGS(flags) flags,
HIDDEN int ssl_write_internal(struct ssl *s, const void *buffer, size_t size, uint64_t flags, size_t *moved)
#else
#define WITH_FLAGS(flags)
HIDDEN int ssl_write_internal(struct ssl *s, const void *buffer, size_t size, size_t *moved)
#endif
{
	if (!s->move) {
		complain(3);
		return -1;
	}
#ifdef FLAGS
	if (flags) {
		complain(4);
		return -1;
	}
#endif
	s->result = s->move(s, (void *)buffer, size, moved);
	return s->result + s->state;
}

int SSL_read(struct ssl *s, void *buffer, int size)
{
	size_t moved;
	int result;

	if (size < 0) {
		complain(5);
		return -1;
	}
	result = ssl_read_internal(s, buffer, (size_t)size, &moved);
	return result > 0 ? (int)moved : result;
}

int SSL_read_ex(struct ssl *s, void *buffer, size_t size, size_t *moved)
{
	int result = ssl_read_internal(s, buffer, size, moved);

	return result < 0 ? 0 : result;
}

int SSL_peek(struct ssl *s, void *buffer, int size)
{
	size_t moved;
	int result;

	if (size < 0) {
		complain(6);
		return -1;
	}
	result = ssl_peek_internal(s, buffer, (size_t)size, &moved);
	return result > 0 ? (int)moved : result;
}

int SSL_write(struct ssl *s, const void *buffer, int size)
{
	size_t moved;
	int result;

	if (size < 0) {
		complain(7);
		return -1;
	}
	result = ssl_write_internal(s, buffer, (size_t)size, WITH_FLAGS(0) & moved);
	return result > 0 ? (int)moved : result;
}

#ifdef FLAGS
int SSL_write_ex2(struct ssl *s, const void *buffer, size_t size, uint64_t flags, size_t *moved)
{
	int result = ssl_write_internal(s, buffer, size, flags, moved);

	return result < 0 ? 0 : result;
}

int SSL_write_ex(struct ssl *s, const void *buffer, size_t size, size_t *moved)
{
	return SSL_write_ex2(s, buffer, size, 0, moved);
}
#else
int SSL_write_ex(struct ssl *s, const void *buffer, size_t size, size_t *moved)
{
	int result = ssl_write_internal(s, buffer, size, moved);

	return result < 0 ? 0 : result;
}
#endif
