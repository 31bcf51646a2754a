// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause
/*
 * Tells userspace of every file that a process maps executable and that nobody has examined: program starts,
 * shared libraries and dlopen alike. What was examined costs a look-up here and nothing there.
 *
 * The hook is the write of a mapping into its address space's maple tree (Linux 6.1): it has the mapping in
 * its hand, runs in the process that maps, and, unlike the tracepoint of the mmap system call, puts no other
 * system call of the machine on the slow path.
 */
#include "kernel.h"

#include "discover.h"
#include "files.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Which files need no further look: enum mm_examined. What the LRU forgets is examined again, which costs a
 * look and nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct mm_file_key);
	__type(value, __u32);
} examined SEC(".maps");

/* Kernel to userspace. Where it is full, the file stays unexamined and the loss is counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 << 10);
} new_files SEC(".maps");

/* A thread that wants to know which file the kernel sees behind a descriptor enters itself with a key of zeros,
 * maps the descriptor executable, and finds the answer here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct mm_file_key);
} questions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MM_DISCOVER_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} discover_counters SEC(".maps");

static __always_inline void count_discover(__u32 counter)
{
	__u64 *value = map_lookup(discover_counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

#include "hold.h"

struct maple_tree {
	unsigned int ma_flags;
} MM_CORE;

struct ma_state {
	struct maple_tree *tree;
} MM_CORE;

struct mm_struct___mm {
	struct maple_tree mm_mt;
} MM_CORE;

struct task_struct___mm {
	struct mm_struct___mm *mm;
} MM_CORE;

/* Whether the tree is the current address space: other things are kept in maple trees too. */
static __always_inline bool is_address_space(struct ma_state *state)
{
	struct task_struct___mm *task = (void *)bpf_get_current_task();
	struct mm_struct___mm *mm = BPF_CORE_READ(task, mm);

	return mm && BPF_CORE_READ(state, tree) == &mm->mm_mt;
}

/* Whether the thread only asked which file this is; answers it. */
static __always_inline bool answered(const struct mm_file_key *file)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct mm_file_key *answer = map_lookup(questions, &thread);

	if (!answer)
		return false;
	*answer = *file;
	return true;
}

static __always_inline void announce(const struct mm_file_key *key, struct vm_area_struct___mm *mapping,
				     struct file___mm *file, __u64 size)
{
	struct mm_new_file *r = ring_reserve(new_files, sizeof(*r));

	if (!r) {
		map_delete(examined, key);
		count_discover(MM_NEW_FILES_LOST);
		return;
	}
	r->file = *key;
	r->start = BPF_CORE_READ(mapping, vm_start);
	r->end = BPF_CORE_READ(mapping, vm_end);
	r->size = size;
	r->pid = bpf_get_current_pid_tgid() >> 32;
	r->path_size = put_path(r->path, file);
	/* Before userspace can hear of the file, so that it finds who waits for it. */
	hold(key, size);
	ring_submit(r, BPF_RB_FORCE_WAKEUP);
	count_discover(MM_NEW_FILES);
}

SEC("raw_tracepoint/ma_write")
int mapped(struct bpf_raw_tracepoint_args *ctx)
{
	struct vm_area_struct___mm *mapping = (void *)ctx->args[3];
	__u32 pending = MM_PENDING, *state;
	struct file___mm *file;
	struct mm_file_key key;
	__u64 size;

	/* The flags first: one read, and most mappings are no code. */
	file = mapping ? code_file(mapping) : NULL;
	if (!file || !is_address_space((void *)ctx->args[1]))
		return 0;
	key = file_key(BPF_CORE_READ(file, f_inode));
	if (answered(&key))
		return 0;
	state = map_lookup(examined, &key);
	if (state && *state == MM_EXAMINED)
		return 0;
	size = BPF_CORE_READ(file, f_inode, i_size);
	if (state)
		hold(&key, size);
	else if (!map_insert(examined, &key, &pending))
		announce(&key, mapping, file, size);
	return 0;
}
