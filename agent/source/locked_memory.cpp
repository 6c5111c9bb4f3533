// SPDX-License-Identifier: Apache-2.0
#include "agent/source/locked_memory.hpp"

#include <alloca.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <cstring>

namespace smig {

namespace {

// For frames, JSON of the hand-over and what libraries allocate: far more than a stop was ever seen to use.
constexpr std::size_t kHeapAhead = 1 << 20;
constexpr std::size_t kStackAhead = 256 << 10;

[[gnu::noinline]] void touch_stack() {
    void* stack = alloca(kStackAhead);
    std::memset(stack, 0, kStackAhead);
    asm volatile("" : : "r"(stack) : "memory");
}

}  // namespace

Result<void> lock_memory() {
    ::mallopt(M_MMAP_MAX, 0);
    ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
    ::mallopt(M_TOP_PAD, kHeapAhead);
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_MEMLOCK, &unlimited);
    if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        return errno_error(Remedy::refused, "locking memory for the stop");
    touch_stack();
    return reserve_heap();
}

Result<void> reserve_heap() {
    void* heap = std::malloc(kHeapAhead);
    if (heap == nullptr) return Error{Remedy::refused, "no memory for the stop"};
    std::memset(heap, 0, kHeapAhead);
    asm volatile("" : : "r"(heap) : "memory");
    std::free(heap);
    return {};
}

}  // namespace smig
