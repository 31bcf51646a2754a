/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * What kernel.h is to BCC, the second loader, for kernels without BTF: the same names in its words. BCC compiles on
 * the machine itself and reads plain text: bpf/build.sh runs the preprocessor alone over the probes, and
 * sensor/mmsensor/capture/kernel/dialect.py rewrites in its output what libbpf would have done with an object: the
 * declarations of maps, and where in the kernel's structs a field is. What neither defines (types, constants,
 * helpers) BCC's own headers do.
 */
#ifndef MM_COMPAT_H
#define MM_COMPAT_H

#define _LINUX_TYPES_H

#include <bpf/bpf_core_read.h>

/* The fields are where the rewritten structs say. */
#undef bpf_core_read
#define bpf_core_read bpf_probe_read_kernel

/* BCC has no calls between functions and no callbacks. */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __always_inline
#define has_bpf_loop() 0
#define bpf_loop(turns, callback, context, flags)

#define map_lookup(map, key) map.lookup(key)
#define map_update(map, key, value) map.update(key, value)
#define map_insert(map, key, value) map.insert(key, value)
#define map_delete(map, key) map.delete(key)
#define ring_reserve(map, size) map.ringbuf_reserve(size)
/* BCC's rings have no such method. */
#define ring_waiting(map) bpf_ringbuf_query((void *)bpf_pseudo_fd(1, MM_NUMBER_OF(map)), BPF_RB_AVAIL_DATA)

#endif /* MM_COMPAT_H */
