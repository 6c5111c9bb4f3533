// SPDX-License-Identifier: Apache-2.0
#include "tests/kmod/load.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "tests/kmod/device.hpp"

namespace {

constexpr size_t kPage = 4096;

std::mt19937_64& chance() {
    static std::mt19937_64 generator(static_cast<uint64_t>(getpid()));
    return generator;
}

uint64_t pick(uint64_t below) {
    return chance()() % below;
}

char* anonymous(size_t pages, int flags = MAP_PRIVATE) {
    void* memory = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

void scribble(char* memory, size_t pages, int times) {
    for (int i = 0; i < times; i++) {
        const uint64_t value = chance()();
        std::memcpy(memory + pick(pages) * kPage + pick(kPage / 8) * 8, &value, 8);
    }
}

void fill(char* memory, size_t pages) {
    for (size_t i = 0; i < pages * kPage; i += 8) {
        const uint64_t value = chance()();
        std::memcpy(memory + i, &value, 8);
    }
}

// A working set, and memory that comes and goes.
void anonymous_writer() {
    char* set = anonymous(2000);
    fill(set, 2000);
    for (;;) {
        scribble(set, 2000, 50);
        if (char* more = anonymous(64)) {
            scribble(more, 64, 40);
            munmap(more, 64 * kPage);
        }
        usleep(2000);
    }
}

// Large pages, split and collapsed.
void large_page_writer() {
    char* area = anonymous(4 * 512);
    madvise(area, 4 * 512 * kPage, MADV_HUGEPAGE);
    for (;;) {
        scribble(area, 4 * 512, 8);
        if (pick(50) == 0) madvise(area + pick(4) * 512 * kPage, kPage, MADV_DONTNEED);
        usleep(3000);
    }
}

// Copy on write in both directions, and processes that end.
void forker() {
    char* memory = anonymous(200);
    fill(memory, 200);
    for (;;) {
        const pid_t child = fork();
        if (child == 0) {
            scribble(memory, 200, 60);
            if (pick(2) == 0) execl("/bin/busybox", "true", nullptr);
            _exit(0);
        }
        scribble(memory, 200, 60);
        waitpid(child, nullptr, 0);
        usleep(3000);
    }
}

void file_writer(const std::string& path, bool sync) {
    for (;;) {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0) _exit(0);
        std::vector<char> block(64 << 10);
        for (int i = 0; i < 16; i++) {
            fill(block.data(), block.size() / kPage);
            if (write(fd, block.data(), block.size()) < 0) break;
        }
        auto* shared = static_cast<char*>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        if (shared != MAP_FAILED) {
            scribble(shared, 256, 50);
            usleep(20000);
            scribble(shared, 256, 50);
            munmap(shared, 1 << 20);
        }
        if (sync) fsync(fd);
        close(fd);
        usleep(5000);
    }
}

// Reads by the device's DMA: into fresh page cache, and straight into a process.
void file_reader(const std::string& path) {
    const int made = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (made < 0) _exit(0);
    std::vector<char> block(1 << 20);
    for (int i = 0; i < 8; i++) {
        fill(block.data(), block.size() / kPage);
        if (write(made, block.data(), block.size()) < 0) _exit(0);
    }
    fsync(made);
    close(made);
    char* direct = anonymous(64);
    for (;;) {
        const int fd = open(path.c_str(), O_RDONLY);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        while (read(fd, block.data(), 256 << 10) > 0) usleep(500);
        close(fd);
        const int raw = open(path.c_str(), O_RDONLY | O_DIRECT);
        for (int i = 0; raw >= 0 && i < 20; i++) {
            if (pread(raw, direct, 64 * kPage, static_cast<off_t>(pick(31) * 64 * kPage)) < 0) break;
            usleep(500);
        }
        if (raw >= 0) close(raw);
    }
}

// Pages that outlive their mapping in a pipe.
void splicer() {
    int ends[2];
    if (pipe(ends) != 0) _exit(0);
    std::vector<char> out(4 * kPage);
    for (;;) {
        char* memory = anonymous(4);
        fill(memory, 4);
        iovec piece{memory, 4 * kPage};
        if (vmsplice(ends[1], &piece, 1, 0) > 0) {
            scribble(memory, 4, 4);
            munmap(memory, 4 * kPage);
            usleep(pick(20000));
            if (read(ends[0], out.data(), out.size()) < 0) _exit(0);
        }
    }
}

void talker() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) _exit(0);
    std::vector<char> block(16 << 10);
    for (;;) {
        fill(block.data(), 4);
        if (write(ends[0], block.data(), block.size()) < 0 || read(ends[1], block.data(), block.size()) < 0)
            _exit(0);
        usleep(1000);
    }
}

// Equal pages that the kernel merges, and that are written again.
void twins() {
    char* memory = anonymous(400);
    madvise(memory, 400 * kPage, MADV_MERGEABLE);
    write_file("/sys/kernel/mm/ksm/pages_to_scan", "2000");
    write_file("/sys/kernel/mm/ksm/sleep_millisecs", "10");
    write_file("/sys/kernel/mm/ksm/run", "1");
    for (;;) {
        std::memset(memory, static_cast<int>(1 + pick(3)), 400 * kPage);
        usleep(100000);
        scribble(memory, 400, 30);
        usleep(20000);
    }
}

bool swap_on() {
    return system("modprobe -q lzo_rle; modprobe -q zram num_devices=1") == 0 &&
           write_file("/sys/block/zram0/disksize", "33554432") &&
           system("mkswap /dev/zram0 >/dev/null 2>&1") == 0 && swapon("/dev/zram0", 0) == 0;
}

void swap_off() {
    swapoff("/dev/zram0");
    // or the next one could not say how large it is to be
    write_file("/sys/block/zram0/reset", "1");
}

// Swaps into compressed memory.
void swapper() {
    char* memory = anonymous(1500);
    fill(memory, 1500);
    for (;;) {
        madvise(memory, 1500 * kPage, MADV_PAGEOUT);
        usleep(20000);
        scribble(memory, 1500, 100);
        usleep(5000);
    }
}

void compacter() {
    for (;;) {
        write_file("/proc/sys/vm/compact_memory", "1");
        if (pick(4) == 0) write_file("/proc/sys/vm/drop_caches", "1");
        usleep(150000);
    }
}

// Kernel memory: names, processes' files, modules that come and go.
void kernel_user() {
    for (int i = 0;; i++) {
        const std::string name = "/tmp/name" + std::to_string(pick(500));
        const int fd = open(name.c_str(), O_CREAT | O_RDWR, 0600);
        if (fd >= 0) close(fd);
        if (pick(3) == 0) unlink(name.c_str());
        if (i % 40 == 0 && system("cat /proc/slabinfo /proc/*/maps >/dev/null 2>&1") < 0) _exit(0);
        if (i % 60 == 0 && system("modprobe -q dummy && rmmod dummy") < 0) _exit(0);
        usleep(2000);
    }
}

}  // namespace

void Load::start(const std::function<void()>& forever) {
    const pid_t child = fork();
    if (child != 0) {
        children_.push_back(child);
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    forever();
    _exit(0);
}

Load::Load() {
    REQUIRE(swap_on());
    start(anonymous_writer);
    start(large_page_writer);
    start(forker);
    start([] { file_writer("/tmp/written", false); });
    start([] { file_writer("/disk/written", true); });
    start([] { file_reader("/disk/read"); });
    start(splicer);
    start(talker);
    start(twins);
    start(swapper);
    start(compacter);
    start(kernel_user);
    usleep(500000);
}

Load::~Load() {
    for (const pid_t child : children_) kill(-child, SIGKILL);
    for (const pid_t child : children_) waitpid(child, nullptr, 0);
    swap_off();
    write_file("/sys/kernel/mm/ksm/run", "2");
    unlink("/disk/written");
    unlink("/disk/read");
}

void Load::describe() {
    std::printf("zram %s, KSM %s, large pages %s, disk %s\n",
                access("/sys/block/zram0", F_OK) == 0 ? "yes" : "no",
                access("/sys/kernel/mm/ksm/run", F_OK) == 0 ? "yes" : "no",
                access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0 ? "yes" : "no",
                access("/disk/lost+found", F_OK) == 0 ? "yes" : "no");
}
