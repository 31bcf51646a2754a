/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * The other end of a connection, from the socket that the TLS library uses inside of a call. Programs that do their
 * TLS in memory (asyncio, node, grpc) use none there, and have no peer. Tracepoints of the socket layer (Linux 6.3)
 * and not of system calls: those would put every system call of the machine on the slow path.
 */
#ifndef MM_PEER_H
#define MM_PEER_H

#include "calls.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10

static __always_inline void announce_peer(const struct mm_connection_key *key, struct mm_connection *connection,
					  struct sock *sk, __u16 family)
{
	struct mm_peer *peer;
	struct mm_record *r;

	announce(key, connection);
	r = ring_reserve(records, sizeof(*r) + sizeof(*peer));
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return;
	}
	fill_header(r, MM_PEER, key, connection);
	r->size = sizeof(*peer);
	peer = (struct mm_peer *)(r + 1);
	__builtin_memset(peer, 0, sizeof(*peer));
	read_peer(sk, family, peer);
	connection->flags |= MM_PEER_KNOWN;
	ring_submit(r, BPF_RB_NO_WAKEUP);
	count(MM_COUNT_RECORDS, 1);
}

/* A socket was used. In a reading call only what it received counts, in a writing one what it sent: a callback that
 * the library makes in between may well talk to somebody else. */
static __always_inline int socket_used(struct sock *sk, __u64 direction)
{
	struct mm_thread_key at = this_thread();
	struct mm_thread *thread = map_lookup(threads, &at);
	struct mm_connection *connection;
	struct mm_connection_key key;
	struct mm_call *call;
	__u16 family;

	if (!thread || !thread->depth)
		return 0;
	call = call_at(thread, thread->depth - 1);
	if (direction_of(call->hook) != direction)
		return 0;
	key = connection_key(call->ssl, at.pid);
	connection = connection_of(&key);
	if (!connection || connection->flags & MM_PEER_KNOWN)
		return 0;
	family = socket_family(sk);
	if (family == FAMILY_INET || family == FAMILY_INET6)
		announce_peer(&key, connection, sk, family);
	else
		connection->flags |= MM_PEER_KNOWN;
	return 0;
}

SEC("raw_tracepoint/sock_send_length")
int socket_sent(struct bpf_raw_tracepoint_args *ctx)
{
	return socket_used((struct sock *)ctx->args[0], MM_WRITE);
}

SEC("raw_tracepoint/sock_recv_length")
int socket_received(struct bpf_raw_tracepoint_args *ctx)
{
	return socket_used((struct sock *)ctx->args[0], MM_READ);
}

#endif /* MM_PEER_H */
