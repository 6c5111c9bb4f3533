// SPDX-License-Identifier: Apache-2.0
// Device: /dev/selfmigrate with every errno as a value, and a process whose running can be seen.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "common/uapi/selfmigrate.h"

class Device {
public:
    Device() : fd_(open("/dev/selfmigrate", O_RDWR | O_CLOEXEC)) {}
    ~Device() { release(); }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    void release() {
        if (fd_ >= 0) close(fd_);
        fd_ = -1;
    }

    int file() const { return fd_; }

    // 0 or the errno; `argument` begins with its size.
    template <class T>
    int call(unsigned long command, T& argument) const {
        return ioctl(fd_, command, &argument) == 0 ? 0 : errno;
    }
    int call_raw(unsigned long command, void* argument) const {
        return ioctl(fd_, command, argument) == 0 ? 0 : errno;
    }

    int plain(unsigned long command, uint32_t flags = 0) const {
        smig_plain argument{sizeof argument, flags};
        return call(command, argument);
    }
    int begin(uint32_t role) const {
        smig_begin argument{sizeof argument, 0, role, 0};
        return call(SMIG_IOC_BEGIN, argument);
    }
    uint32_t state() const {
        smig_status status{};
        status.size = sizeof status;
        return call(SMIG_IOC_STATUS, status) == 0 ? status.state : 0;
    }
    smig_info info() const {
        smig_info answer{};
        answer.size = sizeof answer;
        call(SMIG_IOC_INFO, answer);
        return answer;
    }

private:
    int fd_;
};

// The frame behind an address of a process, from /proc/PID/pagemap; 0: none.
inline uint64_t pfn_of(pid_t pid, uint64_t address) {
    const int fd = open(("/proc/" + std::to_string(pid) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    uint64_t entry = 0;
    const bool ok = pread(fd, &entry, 8, static_cast<off_t>(address / 4096 * 8)) == 8;
    close(fd);
    return ok ? entry & ((1ULL << 55) - 1) : 0;
}

// A child that counts in shared memory as long as it is allowed to run, and holds one page of known contents.
class Ticker {
public:
    static constexpr uint64_t kPattern = 0x5e1f5e1f00c0ffeeULL;

    Ticker() {
        shared_ = static_cast<Shared*>(
            mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        child_ = fork();
        if (child_ == 0) {
            auto* page = static_cast<uint64_t*>(
                mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            for (int i = 0; i < 512; i++) page[i] = kPattern + static_cast<uint64_t>(i);
            mlock(page, 4096);
            shared_->page = reinterpret_cast<uint64_t>(page);
            for (;;) {
                shared_->ticks++;
                usleep(1000);
            }
        }
        while (shared_->ticks == 0) usleep(1000);
    }
    ~Ticker() {
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
        munmap(shared_, sizeof(Shared));
    }
    Ticker(const Ticker&) = delete;
    Ticker& operator=(const Ticker&) = delete;

    // Whether it ticks, watched for at most two seconds; a frozen one is watched for a fifth of that.
    bool runs() const {
        const uint64_t before = shared_->ticks;
        for (int i = 0; i < 2000 && shared_->ticks == before; i++) usleep(1000);
        return shared_->ticks != before;
    }
    bool stands_still() const {
        usleep(50000);
        const uint64_t before = shared_->ticks;
        usleep(400000);
        return shared_->ticks == before;
    }

    uint64_t address() const { return shared_->page; }

    // The frame of the known page.
    uint64_t pfn() const { return pfn_of(child_, shared_->page); }

private:
    struct Shared {
        std::atomic<uint64_t> ticks;
        std::atomic<uint64_t> page;
    };
    Shared* shared_;
    pid_t child_;
};

// A captured image's header and bitmap.
struct Captured {
    smig_capture answer{};
    std::vector<uint64_t> bitmap;
    std::vector<char> handover = std::vector<char>(SMIG_HANDOVER_LEN);

    int take(const Device& device) {
        bitmap.assign((device.info().top_pfn + 63) / 64, 0);
        answer = {};
        answer.size = sizeof answer;
        answer.handover = reinterpret_cast<uint64_t>(handover.data());
        answer.image_bitmap = reinterpret_cast<uint64_t>(bitmap.data());
        answer.image_bitmap_bytes = bitmap.size() * 8;
        return device.call(SMIG_IOC_CAPTURE, answer);
    }
    bool has(uint64_t pfn) const { return bitmap[pfn / 64] >> (pfn % 64) & 1; }
};

// READ of these frames; without `data` the pages come to lie in the module's buffer.
inline smig_read reading(std::span<const uint64_t> pfns, std::span<uint8_t> status, void* data = nullptr) {
    smig_read read{};
    read.size = sizeof read;
    read.pfns = reinterpret_cast<uint64_t>(pfns.data());
    read.status = reinterpret_cast<uint64_t>(status.data());
    read.data = reinterpret_cast<uint64_t>(data);
    read.nr = static_cast<uint32_t>(pfns.size());
    return read;
}

// Free pages of the whole machine, with those that each CPU keeps at hand for its next allocations.
inline uint64_t free_pages() {
    uint64_t pages = Device().info().free_pages;
    std::ifstream zones("/proc/zoneinfo");
    for (std::string word; zones >> word;) {
        uint64_t count = 0;
        if (word == "count:" && zones >> count) pages += count;
    }
    return pages;
}

// Pages that PREPARE keeps for what a stop allocates; they come back with it.
constexpr uint64_t kStopReserve = 2048;

inline int prepare(const Device& device, uint64_t spare = 0) {
    smig_prepare argument{};
    argument.size = sizeof argument;
    argument.spare_pages = spare;
    return device.call(SMIG_IOC_PREPARE, argument);
}

inline bool write_file(const char* path, const std::string& text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const int kept = errno;
    if (fd >= 0) close(fd);
    errno = kept;
    return ok;
}

inline void fail_at(uint32_t step) {
    write_file("/sys/module/selfmigrate/parameters/fail_at", std::to_string(step + 1));
}
