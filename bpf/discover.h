/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * The contract between the discovery program and userspace: which file, what is known of it, who was held
 * for it. sensor/mmsensor/capture/discovery/files.py and holds.py mirror it, and a test holds every size,
 * offset and constant against the BTF of the built object. No implicit padding, as in abi.h.
 */
#ifndef MM_DISCOVER_H
#define MM_DISCOVER_H

#include <linux/types.h>

#define MM_PATH_MAX 1024
#define MM_PATH_PARTS 32

/* The real file behind a mapping, below any overlay: what uprobes sit on. A file that is written over, and
 * another file that gets the same inode number, have another key. */
struct mm_file_key {
	__u64 inode;
	__u64 changed_ns; /* its ctime, nanoseconds since 1970 */
	__u32 device; /* as the kernel writes it: major << 20 | minor */
	__u32 generation;
};

/* Value of map `examined`. */
enum mm_examined {
	MM_PENDING = 1, /* userspace has been told and has not answered */
	MM_EXAMINED = 2, /* of no interest, or attached */
};

/* The record of the ring `new_files`: a process mapped a file executable that nobody has examined. */
struct mm_new_file {
	struct mm_file_key file;
	__u64 start; /* of the mapping, as in /proc/PID/map_files */
	__u64 end;
	__u64 size; /* of the file */
	__u32 pid; /* thread group id, in the initial namespace */
	__u32 path_size; /* bytes of `path`, 0 where it is too long */
	/* From the file up to the root: "libssl.so.3\0lib\0usr\0". */
	char path[MM_PATH_MAX];
};

/* Map `hold_settings`, one element. */
struct mm_hold_settings {
	__u64 min_bytes; /* smaller files are not worth a hold */
	__u64 per_second; /* holds in one second at most, of the whole machine */
	__u32 sensor_pid; /* neither it nor its children are held: it would wait for itself */
	__u32 uid; /* whose processes are held where not everybody's are */
	__u64 everybody; /* the sensor may send signals to processes of any user */
};

/* Value of map `holds`; the key is the pid. */
struct mm_hold {
	struct mm_file_key file; /* the last file that it waits for */
	__u64 since_ns; /* CLOCK_BOOTTIME */
	__u64 started_ns; /* start of the process, CLOCK_BOOTTIME */
};

/* Indices of the array `discover_counters`. */
enum mm_discover_counter {
	MM_NEW_FILES,
	MM_NEW_FILES_LOST, /* the ring had no room: userspace looks through /proc */
	MM_HELD,
	MM_NOT_HELD_TERMINAL, /* its shell would take it for suspended */
	MM_NOT_HELD_THREADS, /* other threads may be in the middle of something */
	MM_NOT_HELD_TRACED, /* its debugger would see the stop */
	MM_NOT_HELD_LIMIT, /* too many this second, or at once */
	MM_NOT_HELD_ALONE, /* nobody there who would let it go */
	MM_HELD_TOO_LONG, /* counted by the keeper, which let it go */
	MM_DISCOVER_COUNTERS,
};

#endif /* MM_DISCOVER_H */
