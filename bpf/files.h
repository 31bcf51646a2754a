/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * A file as the kernel knows it: from a mapping to its inode, its key and its path. The types carry suffixes
 * of their own because kernel.h declares some of them with other members; CO-RE drops a suffix after three
 * underscores.
 */
#ifndef MM_FILES_H
#define MM_FILES_H

#include "kernel.h"

#include "discover.h"

#define MM_VM_EXEC 4
#define MM_S_IFMT 0170000
#define MM_S_IFREG 0100000
#define MM_NANOSECONDS ((1U << 30) - 1)
/* NAME_MAX and its terminator. */
#define MM_NAME_MAX 256

struct super_block___mm {
	__u32 s_dev;
} MM_CORE;

struct timespec64___mm {
	__s64 tv_sec;
	long tv_nsec;
} MM_CORE;

struct inode___mm {
	__u16 i_mode;
	struct super_block___mm *i_sb;
	unsigned long i_ino;
	__s64 i_size;
	__u32 i_generation;
	__s64 i_ctime_sec; /* since Linux 6.11 */
	__u32 i_ctime_nsec;
} MM_CORE;

struct inode___before_6_11 {
	struct timespec64___mm __i_ctime;
} MM_CORE;

struct inode___before_6_6 {
	struct timespec64___mm i_ctime;
} MM_CORE;

struct qstr___mm {
	const unsigned char *name;
} MM_CORE;

struct dentry___mm {
	struct dentry___mm *d_parent;
	struct qstr___mm d_name;
} MM_CORE;

struct vfsmount___mm {
	struct dentry___mm *mnt_root;
} MM_CORE;

struct mount___mm {
	struct mount___mm *mnt_parent;
	struct dentry___mm *mnt_mountpoint;
	struct vfsmount___mm mnt;
} MM_CORE;

struct path___mm {
	struct vfsmount___mm *mnt;
	struct dentry___mm *dentry;
} MM_CORE;

struct file___mm {
	struct inode___mm *f_inode;
	struct path___mm f_path;
} MM_CORE;

struct vm_area_struct___mm {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	struct file___mm *vm_file;
} MM_CORE;

/* The ctime. Since Linux 6.13 a high bit beside the nanoseconds says whether somebody has asked for it. */
static __always_inline __u64 changed_ns(struct inode___mm *inode)
{
	struct inode___before_6_11 *older = (void *)inode;
	struct inode___before_6_6 *oldest = (void *)inode;
	__u64 seconds, nanoseconds;

	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		seconds = BPF_CORE_READ(inode, i_ctime_sec);
		nanoseconds = BPF_CORE_READ(inode, i_ctime_nsec) & MM_NANOSECONDS;
	} else if (bpf_core_field_exists(older->__i_ctime)) {
		seconds = BPF_CORE_READ(older, __i_ctime.tv_sec);
		nanoseconds = BPF_CORE_READ(older, __i_ctime.tv_nsec);
	} else {
		seconds = BPF_CORE_READ(oldest, i_ctime.tv_sec);
		nanoseconds = BPF_CORE_READ(oldest, i_ctime.tv_nsec);
	}
	return seconds * 1000000000ULL + nanoseconds;
}

/* The regular file that a mapping runs code from, NULL where it is none. */
static __always_inline struct file___mm *code_file(struct vm_area_struct___mm *mapping)
{
	struct file___mm *file;

	if (!(BPF_CORE_READ(mapping, vm_flags) & MM_VM_EXEC))
		return NULL;
	file = BPF_CORE_READ(mapping, vm_file);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & MM_S_IFMT) != MM_S_IFREG)
		return NULL;
	return file;
}

static __always_inline struct mm_file_key file_key(struct inode___mm *inode)
{
	struct mm_file_key key = {
		.inode = BPF_CORE_READ(inode, i_ino),
		.changed_ns = changed_ns(inode),
		.device = BPF_CORE_READ(inode, i_sb, s_dev),
		.generation = BPF_CORE_READ(inode, i_generation),
	};

	return key;
}

static __always_inline struct mount___mm *mount_of(struct vfsmount___mm *inner)
{
	return (void *)inner - __builtin_preserve_field_info(((struct mount___mm *)0)->mnt, BPF_FIELD_BYTE_OFFSET);
}

/* A walk from a file up to the root. */
struct mm_walk {
	struct dentry___mm *dentry;
	struct mount___mm *mount;
	char *to; /* MM_PATH_MAX bytes */
	__u32 size; /* of what was written */
	__u32 complete;
};

/* One step of the walk; where a mount ends, it goes on at what it is mounted on. */
static long step_up(__u32 index, struct mm_walk *walk)
{
	struct dentry___mm *dentry = walk->dentry, *parent = BPF_CORE_READ(dentry, d_parent);
	struct mount___mm *mount = walk->mount;
	__u32 at = walk->size;
	long size;

	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root) || dentry == parent) {
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = BPF_CORE_READ(mount, mnt_parent);
		walk->complete = walk->mount == mount;
		return walk->complete;
	}
	if (at > MM_PATH_MAX - MM_NAME_MAX)
		return 1;
	size = bpf_probe_read_kernel_str(walk->to + at, MM_NAME_MAX, BPF_CORE_READ(dentry, d_name.name));
	if (size <= 0)
		return 1;
	walk->size = at + size;
	walk->dentry = parent;
	return 0;
}

/* Writes the names from the file up to the root of its mount namespace, and returns how many bytes; 0 where
 * they do not fit. */
static __always_inline __u32 put_path(char *to, struct file___mm *file)
{
	struct mm_walk walk = {
		.dentry = BPF_CORE_READ(file, f_path.dentry),
		.mount = mount_of(BPF_CORE_READ(file, f_path.mnt)),
		.to = to,
	};

	bpf_loop(MM_PATH_PARTS, step_up, &walk, 0);
	return walk.complete ? walk.size : 0;
}

#endif /* MM_FILES_H */
