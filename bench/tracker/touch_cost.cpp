// SPDX-License-Identifier: Apache-2.0
// What following its writes costs a guest: writes pages, with the module unloaded, loaded and following, and
// prints one JSON object of medians (nanoseconds).  Runs in the guest, as root.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "common/uapi/selfmigrate.h"

namespace {

constexpr size_t kPage = 4096;
constexpr int kRounds = 5;

[[noreturn]] void die(const char* what) {
    std::perror(what);
    std::exit(1);
}

uint64_t now_ns() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

class Memory {
public:
    explicit Memory(size_t pages) : pages_(pages) {
        void* at = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) die("mmap");
        madvise(at, pages * kPage, MADV_NOHUGEPAGE);
        memory_ = static_cast<volatile uint64_t*>(at);
        write_a_word();
    }
    // Nanoseconds a page: one word of each.
    double write_a_word() {
        const uint64_t begun = now_ns();
        for (size_t i = 0; i < pages_; i++) memory_[i * kPage / 8] = ++value_;
        return static_cast<double>(now_ns() - begun) / static_cast<double>(pages_);
    }
    // Nanoseconds in all: every word of every page, `times` over.
    double write_all(int times) {
        const uint64_t begun = now_ns();
        for (int time = 0; time < times; time++)
            for (size_t i = 0; i < pages_ * kPage / 8; i++) memory_[i] = ++value_;
        return static_cast<double>(now_ns() - begun);
    }

private:
    size_t pages_;
    volatile uint64_t* memory_;
    uint64_t value_ = 0;
};

// Nanoseconds a page of memory that comes, is written and goes: what the hooks cost a page fault.
double come_and_go() {
    constexpr size_t kPages = 2048;
    const uint64_t begun = now_ns();
    for (int i = 0; i < 4; i++) {
        void* at = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) die("mmap");
        madvise(at, kPages * kPage, MADV_NOHUGEPAGE);
        for (size_t page = 0; page < kPages; page++) static_cast<volatile char*>(at)[page * kPage] = 1;
        munmap(at, kPages * kPage);
    }
    return static_cast<double>(now_ns() - begun) / (4.0 * kPages);
}

template <class Measure>
double repeated(Measure measure) {
    std::vector<double> values;
    for (int round = 0; round < kRounds; round++) values.push_back(measure());
    return median(values);
}

template <class Argument>
void call(int device, unsigned long request, const char* name, Argument& argument) {
    argument.size = sizeof(argument);
    if (ioctl(device, request, &argument) != 0) die(name);
}

void shell(const char* command) {
    if (std::system(command) != 0) die(command);
}

}  // namespace

int main(int argc, char** argv) {
    const size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 64;
    // as many rounds as a pass over a guest takes time
    const int times = argc > 2 ? std::atoi(argv[2]) : 200;
    Memory memory(mib << 8);

    shell("rmmod selfmigrate");
    const double word_without = repeated([&] { return memory.write_a_word(); });
    const double all_without = repeated([&] { return memory.write_all(times); });
    const double fault_without = repeated(come_and_go);
    shell("modprobe selfmigrate");
    const double word_off = repeated([&] { return memory.write_a_word(); });
    const double fault_off = repeated(come_and_go);

    const int device = open("/dev/selfmigrate", O_RDWR | O_CLOEXEC);
    if (device < 0) die("/dev/selfmigrate");
    smig_info info{};
    call(device, SMIG_IOC_INFO, "INFO", info);
    smig_begin begin{};
    begin.role = SMIG_ROLE_SOURCE;
    call(device, SMIG_IOC_BEGIN, "BEGIN", begin);
    smig_prepare prepare{};
    call(device, SMIG_IOC_PREPARE, "PREPARE", prepare);
    smig_track track{};
    call(device, SMIG_IOC_TRACK, "TRACK", track);
    std::vector<uint64_t> bitmap((info.top_pfn + 63) / 64);
    std::vector<double> pass_us;
    const auto pass = [&] {
        smig_pass argument{};
        argument.bitmap = reinterpret_cast<uint64_t>(bitmap.data());
        argument.bitmap_bytes = bitmap.size() * 8;
        const uint64_t begun = now_ns();
        call(device, SMIG_IOC_PASS, "PASS", argument);
        pass_us.push_back(static_cast<double>(now_ns() - begun) / 1000);
        // Only what has been read loses the right to be written.
        std::vector<uint64_t> pfns;
        std::vector<uint8_t> status(SMIG_BUFFER_PAGES);
        const auto read = [&] {
            smig_read argument{};
            argument.pfns = reinterpret_cast<uint64_t>(pfns.data());
            argument.status = reinterpret_cast<uint64_t>(status.data());
            argument.nr = static_cast<uint32_t>(pfns.size());
            if (argument.nr > 0) call(device, SMIG_IOC_READ, "READ", argument);
            pfns.clear();
        };
        for (uint64_t pfn = 0; pfn < info.top_pfn; pfn++) {
            if (bitmap[pfn / 64] >> (pfn % 64) & 1) pfns.push_back(pfn);
            if (pfns.size() == SMIG_BUFFER_PAGES) read();
        }
        read();
    };
    std::vector<double> first, later, all;
    for (int round = 0; round < kRounds; round++) {
        pass();
        first.push_back(memory.write_a_word());
        later.push_back(memory.write_a_word());
    }
    for (int round = 0; round < kRounds; round++) {
        pass();
        all.push_back(memory.write_all(times));
    }
    const double fault_on = repeated(come_and_go);
    close(device);
    const double word_after = repeated([&] { return memory.write_a_word(); });
    std::printf(
        "{\"mib\": %zu, \"first_write_ns\": %.0f, \"later_write_ns\": %.1f, \"write_unloaded_ns\": %.1f, "
        "\"write_off_ns\": %.1f, \"write_after_ns\": %.1f, \"pass_ms\": %.1f, \"pass_unloaded_ms\": %.1f, "
        "\"fault_unloaded_ns\": %.0f, \"fault_off_ns\": %.0f, \"fault_on_ns\": %.0f, \"begin_pass_ms\": "
        "%.2f}\n",
        mib, median(first), median(later), word_without, word_off, word_after, median(all) / 1e6,
        all_without / 1e6, fault_without, fault_off, fault_on, median(pass_us) / 1000);
    return 0;
}
