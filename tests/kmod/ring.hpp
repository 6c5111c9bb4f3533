// SPDX-License-Identifier: Apache-2.0
// An io_uring of one entry, by bare system calls: an operation is submitted and waited for.
#pragma once

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

class Ring {
public:
    Ring() {
        io_uring_params setup{};
        file_ = static_cast<int>(syscall(SYS_io_uring_setup, 1, &setup));
        if (file_ < 0) return;
        fcntl(file_, F_SETFD, FD_CLOEXEC);
        submissions_ = map(setup.sq_off.array + setup.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
        completions_ = map(setup.cq_off.cqes + setup.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
        entries_ = map(setup.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
        for (const char* ring : {submissions_, completions_, entries_})
            if (ring == MAP_FAILED) std::abort();
        submitted_ = word(submissions_, setup.sq_off.tail);
        completed_ = word(completions_, setup.cq_off.head);
        arrived_ = word(completions_, setup.cq_off.tail);
        results_ = reinterpret_cast<const io_uring_cqe*>(completions_ + setup.cq_off.cqes);
        result_mask_ = *word(completions_, setup.cq_off.ring_mask);
        // with one entry its number is always 0
        *word(submissions_, setup.sq_off.array) = 0;
    }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // False where the kernel has none, or allows none.
    bool works() const { return file_ >= 0; }

    // IORING_OP_READ or IORING_OP_WRITE, at the file's own position; bytes or a negative errno.
    int transfer(uint8_t operation, int file, void* at, uint32_t bytes) {
        io_uring_sqe entry{};
        entry.opcode = operation;
        entry.fd = file;
        entry.off = UINT64_MAX;
        entry.addr = reinterpret_cast<uint64_t>(at);
        entry.len = bytes;
        std::memcpy(entries_, &entry, sizeof entry);
        std::atomic_ref(*submitted_).fetch_add(1, std::memory_order_release);
        // a freeze interrupts the wait, and then it says that it was submitted
        uint32_t submit = 1;
        while (std::atomic_ref(*arrived_).load(std::memory_order_acquire) == *completed_) {
            const long entered =
                syscall(SYS_io_uring_enter, file_, submit, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
            if (entered < 0 && errno != EINTR) return -errno;
            if (entered > 0) submit = 0;
        }
        const int result = results_[*completed_ & result_mask_].res;
        std::atomic_ref(*completed_).fetch_add(1, std::memory_order_release);
        return result;
    }

    // The pages stay pinned until the buffer is given back.
    bool pin(void* at, size_t bytes) {
        iovec buffer{at, bytes};
        return registered(IORING_REGISTER_BUFFERS, &buffer, 1);
    }
    bool unpin() { return registered(IORING_UNREGISTER_BUFFERS, nullptr, 0); }

private:
    // A freeze interrupts it.
    bool registered(unsigned what, void* argument, unsigned count) const {
        while (syscall(SYS_io_uring_register, file_, what, argument, count) != 0)
            if (errno != EINTR) return false;
        return true;
    }
    char* map(size_t bytes, off_t what) const {
        return static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, what));
    }
    static uint32_t* word(char* ring, uint32_t offset) { return reinterpret_cast<uint32_t*>(ring + offset); }

    int file_ = -1;
    char *submissions_ = nullptr, *completions_ = nullptr, *entries_ = nullptr;
    uint32_t *submitted_ = nullptr, *completed_ = nullptr, *arrived_ = nullptr;
    const io_uring_cqe* results_ = nullptr;
    uint32_t result_mask_ = 0;
};
