/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * The one contract between the probes and userspace: what a record in the ring looks like, what the
 * maps hold, which counter is which. sensor/mmsensor/capture/kernel/abi.py mirrors it, and a test holds every
 * size, offset and constant of both against the BTF of the built object.
 *
 * All fields are naturally aligned and the structs have no implicit padding, so that the layout is the
 * same for every compiler and for 64-bit x86 and arm alike.
 */
#ifndef MM_ABI_H
#define MM_ABI_H

#include <linux/types.h>

#define MM_ABI_VERSION 2

/* Payload sizes of records. Powers of two keep the waste of a record under one half of it, and TLS
 * itself hands out at most 16 KiB at a time. */
#define MM_CLASS_MIN 256
#define MM_CLASS_MAX 16384

/* A call longer than this is copied up to here, the rest is counted as MM_LOST_CALL_TOO_LONG and shows
 * as a gap: 2^14 records of 16 KiB are 256 MiB where bpf_loop exists (Linux 5.17), else 16 MiB.
 * BCC has no functions: the verifier walks every turn there, and that of Linux 6.1 gives up before 8 MiB. */
#define MM_CHUNKS_WITH_LOOP 16384
#ifdef MM_BCC
#define MM_CHUNKS_WITHOUT_LOOP 128
#else
#define MM_CHUNKS_WITHOUT_LOOP 1024
#endif

/* No program has a buffer of a terabyte: a call that claims more of it is wrong. */
#define MM_CALL_MAX (1ULL << 40)

#define MM_SNI_MAX 256

enum mm_kind {
	MM_DATA = 1, /* bytes of one call, or of a piece of it */
	MM_SNI = 2, /* payload: the host name the client asked for */
	MM_FREE = 3, /* SSL_free: read_offset and write_offset are final */
	MM_EXIT = 4, /* the last thread of a process ended: no payload, no connection */
	MM_OPEN = 5, /* before anything else of a connection; payload: struct mm_process */
	MM_PEER = 6, /* the other end of the socket; payload: struct mm_peer */
};

enum mm_direction {
	MM_WRITE = 0, /* as the probed process did it */
	MM_READ = 1,
};

/* Bits of mm_record.flags. */
enum mm_flag {
	MM_LATE = 1, /* the connection was not seen from SSL_new: earlier bytes may be missing */
	MM_LAST = 2, /* the last piece of a call */
	MM_ANNOUNCED = 4, /* MM_OPEN was sent: userspace has heard of the connection */
	MM_PEER_KNOWN = 8, /* MM_PEER was sent, or the socket is of a kind that has none */
};

/* Header of every record in the `records` ring; the payload follows. 80 bytes. */
struct mm_record {
	__u64 at_ns; /* CLOCK_BOOTTIME */
	__u64 started_ns; /* start of the process, CLOCK_BOOTTIME */
	__u64 ssl; /* address of the SSL object, 0 for MM_EXIT */
	__u64 generation; /* CLOCK_BOOTTIME at which this use of the SSL object began */
	__u64 offset; /* of the payload's first byte in its direction */
	__u64 call_size; /* bytes of the whole call that this record is a piece of */
	__u64 read_offset; /* MM_FREE: bytes read over the life of the connection */
	__u64 write_offset; /* MM_FREE: bytes written */
	__u32 pid; /* thread group id, in the initial namespace */
	__u32 size; /* bytes of payload that count; the record itself is a size class long */
	__u8 kind; /* enum mm_kind */
	__u8 direction; /* enum mm_direction */
	__u8 flags; /* enum mm_flag, or-ed */
	__u8 reserved[5];
};

/* Payload of MM_OPEN: who the process is, read in the kernel because it may be gone before anybody looks
 * into /proc. 32 bytes. */
struct mm_process {
	__u64 cgroup; /* id of its cgroup in the unified hierarchy */
	__u32 uid; /* effective, in the initial namespace */
	__u32 gid;
	char comm[16];
};

/* Payload of MM_PEER. 20 bytes. */
struct mm_peer {
	__u8 address[16]; /* IPv4 in the first four */
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 port; /* in host order */
};

/*
 * What a probe is told with its link: the call's shape, packed into the 64-bit cookie of a uprobe. With it one
 * program serves every function that moves bytes.
 */
#define MM_HOOK_READ (1ULL << 0) /* enum mm_direction */
#define MM_HOOK_FORM_SHIFT 1 /* enum mm_form, 3 bits */
#define MM_HOOK_FORM_MASK 7
#define MM_HOOK_STACK_SHIFT 16 /* 16 bits: how far the stack pointer is below that at the function's entry */
#define MM_HOOK_SUCCESS_SHIFT 32 /* 16 bits: the result that means success; 0: any positive one */
#define MM_HOOK_TARGET_SHIFT 48 /* 16 bits: index into map `fired`; 0: none */

/* Where a function has its arguments and how many bytes it moved. All begin (connection, buffer, capacity). */
enum mm_form {
	MM_FORM_COUNT = 0, /* the result, an int */
	MM_FORM_MOVED_4TH = 1, /* written where the fourth argument, a size_t *, points */
	MM_FORM_MOVED_5TH = 2, /* ... the fifth argument */
	MM_FORM_FILE = 3, /* the result; the bytes come from a file and are in no buffer */
	MM_FORM_GO = 4, /* Go's register ABI: (receiver, slice), result and error */
};

/* Elements of map `fired`. */
#define MM_TARGETS 4096

/* Map `settings`, one element: knobs, set before anything is attached. */
struct mm_settings {
	__u64 wake_bytes; /* wake userspace when this much waits in the ring */
	__u64 undecided_bytes; /* copied of a connection that has no verdict yet; 0: without limit */
	__u32 own_pid; /* never captured: the sensor's own TLS */
	__u32 only_listed_pids; /* capture only what the `pids` map lists */
};

/* Key of map `connections`. */
struct mm_connection_key {
	__u64 ssl;
	__u64 started_ns; /* a reused pid is another process */
	__u32 pid;
	__u32 reserved;
};

enum mm_state {
	MM_UNDECIDED = 0,
	MM_INTERESTING = 1,
	MM_IGNORED = 2, /* userspace does not want it: neither copy nor wake-up from here on */
	MM_ENDED = 3, /* freed, but the ring had no room to say so, or its position is unknown */
};

/* Value of map `connections`. */
struct mm_connection {
	__u64 generation;
	__u64 read_offset; /* bytes the process has read, captured or lost */
	__u64 write_offset;
	__u32 state; /* enum mm_state */
	__u32 flags; /* enum mm_flag, all but MM_LAST */
};

/* Key of map `verdicts` (userspace to kernel); the value is an enum mm_state. It names the generation so
 * that a verdict never hits the next connection in the same SSL object. */
struct mm_verdict_key {
	__u64 ssl;
	__u64 generation;
	__u32 pid;
	__u32 reserved;
};

/* Indices of the per-CPU array `counters`. Events unless the name says bytes. */
enum mm_counter {
	MM_COUNT_RECORDS,
	MM_COUNT_BYTES,
	MM_COUNT_CALLS, /* calls that moved at least one byte */
	MM_COUNT_IGNORED_CALLS, /* on connections with the verdict MM_IGNORED */
	MM_LOST_RING_FULL, /* a record found no room */
	MM_LOST_RING_FULL_BYTES,
	MM_LOST_UNREADABLE, /* the buffer could not be read: paged out or unmapped */
	MM_LOST_UNREADABLE_BYTES,
	MM_LOST_CALL_TOO_LONG,
	MM_LOST_CALL_TOO_LONG_BYTES,
	MM_LOST_CONTROL, /* a MM_SNI, MM_FREE or MM_EXIT found no room; userspace finds out by looking */
	MM_LOST_CALLS_FULL, /* more threads, or deeper in calls, than the `threads` map holds */
	MM_LOST_CONNECTIONS_FULL, /* more connections than the `connections` map holds */
	MM_LOST_CONNECTIONS_FULL_BYTES,
	MM_LOST_BAD_RETURN, /* a return value that contradicts the arguments */
	MM_COUNT_NESTED, /* the library calling itself: belongs to the outer call */
	MM_COUNT_STALE, /* a call whose return was never seen */
	MM_LOST_UNDECIDED, /* a call on a connection that had its undecided_bytes and still no verdict */
	MM_LOST_UNDECIDED_BYTES,
	MM_COUNTERS,
};

#endif /* MM_ABI_H */
