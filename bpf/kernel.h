/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * The few kernel types the probes look into, and the registers of a call. Declared here, with CO-RE
 * relocations, instead of a generated vmlinux.h: the build needs no kernel, no bpftool and no kernel
 * headers, and what we depend on can be read in one place.
 */
#ifndef MM_KERNEL_H
#define MM_KERNEL_H

#ifdef MM_BCC
#include "compat.h"
#else

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define MM_CORE __attribute__((preserve_access_index))

/* bpf_loop is in the kernel since 5.17; the name of the enumerator tells us at load time. */
enum bpf_func_id___mm {
	BPF_FUNC_loop___mm = 181,
};

#define has_bpf_loop() bpf_core_enum_value_exists(enum bpf_func_id___mm, BPF_FUNC_loop___mm)

/* Maps and the ring by name. */
#define map_lookup(map, key) bpf_map_lookup_elem(&map, key)
#define map_update(map, key, value) bpf_map_update_elem(&map, key, value, BPF_ANY)
#define map_insert(map, key, value) bpf_map_update_elem(&map, key, value, BPF_NOEXIST)
#define map_delete(map, key) bpf_map_delete_elem(&map, key)
#define ring_reserve(map, size) bpf_ringbuf_reserve(&map, size, 0)
#define ring_waiting(map) bpf_ringbuf_query(&map, BPF_RB_AVAIL_DATA)

#endif /* MM_BCC */

#define ring_submit(record, flags) bpf_ringbuf_submit(record, flags)
#define ring_discard(record) bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP)

#include "abi.h"

struct signal_struct {
	struct {
		int counter;
	} live; /* threads of the group that have not begun to exit */
} MM_CORE;

struct task_struct {
	struct task_struct *group_leader;
	struct signal_struct *signal;
	__u64 start_boottime; /* so named since Linux 5.5 */
} MM_CORE;

/* The unnamed unions around these are of no interest to a relocation by name. */
struct sock_common {
	unsigned short skc_family;
	__u32 skc_daddr;
	__u16 skc_dport;
	struct {
		__u8 bytes[16];
	} skc_v6_daddr;
} MM_CORE;

struct sock {
	struct sock_common __sk_common;
} MM_CORE;

/* When the current process started: a reused pid is another process. */
static __always_inline __u64 process_started(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, group_leader, start_boottime);
}

/* Threads of the current process that have not begun to exit. */
static __always_inline int threads_alive(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, signal, live.counter);
}

static __always_inline __u16 socket_family(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_family);
}

static __always_inline void read_peer(struct sock *sk, __u16 family, struct mm_peer *peer)
{
	__u16 port = BPF_CORE_READ(sk, __sk_common.skc_dport);

	peer->family = family;
	peer->port = __builtin_bswap16(port);
	if (family == 2 /* AF_INET */)
		BPF_CORE_READ_INTO((__u32 *)peer->address, sk, __sk_common.skc_daddr);
	else
		BPF_CORE_READ_INTO(&peer->address, sk, __sk_common.skc_v6_daddr);
}

/*
 * Registers at a function's entry and return. Own declarations, since <asm/ptrace.h> has other field
 * names for userspace and needs the target's C library headers in a cross build.
 */
#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	unsigned long ip, cs, flags, sp, ss;
};

#define MM_ARG1(ctx) ((ctx)->di)
#define MM_ARG2(ctx) ((ctx)->si)
#define MM_ARG3(ctx) ((ctx)->dx)
#define MM_ARG4(ctx) ((ctx)->cx)
#define MM_ARG5(ctx) ((ctx)->r8)
#define MM_IP(ctx) ((ctx)->ip)
#define MM_RESULT(ctx) ((ctx)->ax)
#define MM_SP(ctx) ((ctx)->sp)
#define MM_GO_G(ctx) ((ctx)->r14)
#define MM_GO_ARG1(ctx) ((ctx)->ax)
#define MM_GO_ARG2(ctx) ((ctx)->bx)
#define MM_GO_ARG3(ctx) ((ctx)->cx)
#define MM_GO_CLOSURE(ctx) ((ctx)->dx)
/* `ret` pops the return address. */
#define MM_SP_AT_ENTRY(ctx) ((ctx)->sp - sizeof(long))

#elif defined(__TARGET_ARCH_arm64)

struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
#define pt_regs user_pt_regs

#define MM_ARG1(ctx) ((ctx)->regs[0])
#define MM_ARG2(ctx) ((ctx)->regs[1])
#define MM_ARG3(ctx) ((ctx)->regs[2])
#define MM_ARG4(ctx) ((ctx)->regs[3])
#define MM_ARG5(ctx) ((ctx)->regs[4])
#define MM_IP(ctx) ((ctx)->pc)
#define MM_RESULT(ctx) ((ctx)->regs[0])
#define MM_SP(ctx) ((ctx)->sp)
#define MM_SP_AT_ENTRY(ctx) ((ctx)->sp)
#define MM_GO_G(ctx) ((ctx)->regs[28])
#define MM_GO_ARG1(ctx) ((ctx)->regs[0])
#define MM_GO_ARG2(ctx) ((ctx)->regs[1])
#define MM_GO_ARG3(ctx) ((ctx)->regs[2])
#define MM_GO_CLOSURE(ctx) ((ctx)->regs[26])

#else
#error "define __TARGET_ARCH_x86 or __TARGET_ARCH_arm64"
#endif

#endif /* MM_KERNEL_H */
