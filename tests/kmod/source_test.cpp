// SPDX-License-Identifier: Apache-2.0
// The stop on the source: what it refuses, what it undoes, what the image holds.
#include <doctest/doctest.h>
#include <linux/kexec.h>
#include <sys/syscall.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "tests/kmod/device.hpp"
#include "tests/kmod/passes.hpp"

namespace {

const char* const kSecondCpu = "/sys/devices/system/cpu/cpu1/online";

bool has_second_cpu() {
    return access(kSecondCpu, F_OK) == 0;
}

// A child that holds pages which the kernel itself does not map (memfd_secret), of known contents.
class SecretHolder {
public:
    static constexpr size_t kPages = 16;

    SecretHolder() {
        shared_ = static_cast<std::atomic<uint64_t>*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        child_ = fork();
        if (child_ == 0) hold();
        while (*shared_ == 0) {
            REQUIRE(waitpid(child_, nullptr, WNOHANG) == 0);
            usleep(1000);
        }
    }
    ~SecretHolder() {
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
        munmap(shared_, 4096);
    }
    SecretHolder(const SecretHolder&) = delete;
    SecretHolder& operator=(const SecretHolder&) = delete;

    uint64_t pfn(size_t page) const { return pfn_of(child_, *shared_ + page * 4096); }
    static uint64_t word(size_t page, size_t index) { return page << 32 ^ index ^ 0x5ec2e7; }

private:
    void hold() const {
        const auto fd = static_cast<int>(syscall(SYS_memfd_secret, 0));
        if (fd < 0 || ftruncate(fd, kPages * 4096) != 0) _exit(1);
        void* memory = mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) _exit(1);
        auto* words = static_cast<uint64_t*>(memory);
        for (size_t page = 0; page < kPages; page++)
            for (size_t index = 0; index < 512; index++) words[page * 512 + index] = word(page, index);
        *shared_ = reinterpret_cast<uint64_t>(memory);
        for (;;) pause();
    }

    std::atomic<uint64_t>* shared_;  // where its pages are
    pid_t child_;
};

constexpr uint64_t kLeft = 40 << 8;        // pages that are left to the guest
constexpr uint64_t kNeeded = 96ull << 20;  // bytes that a hungry process asks for

int hold_all_but(uint64_t pages, const Device& device) {
    smig_prepare argument{};
    argument.size = sizeof argument;
    argument.spare_pages = free_pages() - pages;
    return device.call(SMIG_IOC_PREPARE, argument);
}

// Ends with 0 when it has got its memory.
pid_t start_hungry() {
    const pid_t child = fork();
    if (child != 0) return child;
    void* memory = mmap(nullptr, kNeeded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) _exit(1);
    std::memset(memory, 1, kNeeded);
    _exit(0);
}

// What main asks for, and more, as long as it lives.
struct Locking {
    explicit Locking(int more) { REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE | more) == 0); }
    ~Locking() { mlockall(MCL_CURRENT | MCL_FUTURE); }
    Locking(const Locking&) = delete;
    Locking& operator=(const Locking&) = delete;
};

}  // namespace

TEST_CASE("while a move runs suspend, hibernation, kexec and CPU hotplug are refused, afterwards not") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    CHECK_FALSE(write_file("/sys/power/state", "mem"));
    CHECK(errno == EBUSY);
    CHECK_FALSE(write_file("/sys/power/state", "freeze"));
    CHECK(errno == EBUSY);
    CHECK_FALSE(write_file("/sys/power/state", "disk"));
    CHECK(syscall(SYS_kexec_load, 0, 0, nullptr, 0) == -1);
    CHECK(errno == EBUSY);
    if (has_second_cpu()) {
        CHECK_FALSE(write_file(kSecondCpu, "0"));
        CHECK(errno == EBUSY);
    }
    device.release();
    CHECK(syscall(SYS_kexec_load, 0, 0, nullptr, 0) == 0);
    if (has_second_cpu()) {
        CHECK(write_file(kSecondCpu, "0"));
        CHECK(write_file(kSecondCpu, "1"));
    }
}

TEST_CASE("memory that is not there is refused with figures, and nothing is kept") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    smig_prepare argument{};
    argument.size = sizeof argument;
    argument.spare_pages = device.info().ram_pages;
    CHECK(device.call(SMIG_IOC_PREPARE, argument) == ENOMEM);
    CHECK(argument.needed_pages >= argument.spare_pages);
    CHECK(argument.available_pages > 0);
    CHECK(argument.available_pages < argument.needed_pages);
    argument.spare_pages = device.info().ram_pages + 1;
    CHECK(device.call(SMIG_IOC_PREPARE, argument) == EINVAL);
    CHECK(prepare(device) == 0);
}

TEST_CASE("a guest that runs out of memory gets back what is held, nobody is killed, and the move ends") {
    Ticker ticker;
    {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(hold_all_but(kLeft, device) == 0);
        CHECK(free_pages() * 4096 < kNeeded);
        const pid_t hungry = start_hungry();
        int status = -1;
        waitpid(hungry, &status, 0);
        CHECK(status == 0);
        CHECK(prepare(device) == ENOBUFS);
        Captured captured;
        CHECK(captured.take(device) == ENOBUFS);
    }
    CHECK(ticker.runs());
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    CHECK(prepare(device) == 0);
}

// The freezer stops one process after the other, and who is not stopped yet may want memory.
TEST_CASE("a guest that runs out of memory while a stop begins loses no process") {
    constexpr useconds_t kStepUs = 400;
    constexpr uint64_t kNearlyNone = 10 << 8;  // pages that are free when the stop begins
    int stopped = 0, ended_early = 0, ended_in_freeze = 0;
    for (useconds_t pause = 0; pause < 12 * kStepUs; pause += kStepUs) {
        CAPTURE(pause);
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(hold_all_but(kLeft, device) == 0);
        const pid_t hungry = start_hungry();
        siginfo_t end{};
        while (device.info().free_pages > kNearlyNone && end.si_pid == 0) {
            usleep(100);
            waitid(P_PID, static_cast<id_t>(hungry), &end, WEXITED | WNOHANG | WNOWAIT);
        }
        usleep(pause);
        Captured captured;
        const int error = captured.take(device);
        if (error == 0) {
            stopped++;
            CHECK(device.plain(SMIG_IOC_THAW) == 0);
        } else {
            CHECK(error == ENOBUFS);
            (captured.answer.failed_step == 0 ? ended_early : ended_in_freeze)++;
        }
        int status = -1;
        waitpid(hungry, &status, 0);
        CHECK(status == 0);
    }
    MESSAGE(stopped << " stops; for want of memory ended " << ended_early << " before the freeze, "
                    << ended_in_freeze << " in it");
    CHECK(ended_early + ended_in_freeze > 0);
}

TEST_CASE("a guest that runs out of memory while it is being held loses no process") {
    constexpr useconds_t kStepUs = 4000;
    int held = 0, ended = 0;
    for (useconds_t pause = 0; pause < 12 * kStepUs; pause += kStepUs) {
        CAPTURE(pause);
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        smig_prepare argument{};
        argument.size = sizeof argument;
        argument.spare_pages = free_pages() - kLeft;
        // every other time what lies in the way of a landing kernel has to move, too
        argument.avoid_start = device.info().top_pfn / 2;
        argument.avoid_pages = pause % (2 * kStepUs) == 0 ? 0 : device.info().top_pfn / 4;
        const pid_t hungry = start_hungry();
        usleep(pause);
        const int error = device.call(SMIG_IOC_PREPARE, argument);
        (error == 0 ? held : ended)++;
        if (error != 0) CHECK((error == ENOMEM || error == ENOBUFS));
        int status = -1;
        waitpid(hungry, &status, 0);
        CHECK(status == 0);
    }
    MESSAGE(held << " held, " << ended << " not");
}

TEST_CASE("what a stop allocates is kept for it, and comes back with the stop") {
    constexpr uint64_t kSlack = 500;
    sync();
    REQUIRE(write_file("/proc/sys/vm/drop_caches", "3"));
    const uint64_t before = free_pages();
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    smig_prepare argument{};
    argument.size = sizeof argument;
    REQUIRE(device.call(SMIG_IOC_PREPARE, argument) == 0);
    CHECK(before > free_pages() + argument.shadow_pages + kStopReserve - kSlack);
    Captured captured;
    fail_at(SMIG_STEP_SUSPEND_DEVICES);
    CHECK(captured.take(device) == EIO);
    CHECK(before < free_pages() + argument.shadow_pages + kStopReserve - kSlack);
    REQUIRE(device.call(SMIG_IOC_PREPARE, argument) == 0);
    CHECK(before > free_pages() + argument.shadow_pages + kStopReserve - kSlack);
}

TEST_CASE("what PREPARE holds comes back when the file is closed") {
    const uint64_t before = free_pages();
    {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(prepare(device, 20000) == 0);
        CHECK(free_pages() + 15000 < before);
    }
    CHECK(free_pages() + 2000 > before);
}

TEST_CASE("frames to be avoided are held, what lay there has moved and is whole, and they come back") {
    constexpr uint64_t kMostPages = 16384;
    constexpr uint64_t kLeastPages = 4096;  // more than any CPU keeps at hand
    constexpr uint64_t kBlock = 512;
    int advice = MADV_HUGEPAGE;
    SUBCASE("a huge page") {}
    SUBCASE("small pages") {
        advice = MADV_NOHUGEPAGE;
    }
    // so that there are blocks with nothing in them
    sync();
    REQUIRE(write_file("/proc/sys/vm/drop_caches", "3"));
    REQUIRE(write_file("/proc/sys/vm/compact_memory", "1"));
    const Locking on_touch(MCL_ONFAULT);
    const std::unique_ptr<uint64_t, decltype(&free)> memory(
        static_cast<uint64_t*>(aligned_alloc(kBlock * 4096, kMostPages * 4096)), &free);
    REQUIRE(madvise(memory.get(), kMostPages * 4096, advice) == 0);
    const auto word = [&](uint64_t page) { return memory.get() + page * 512; };
    const auto frame = [&](uint64_t page) {
        return pfn_of(getpid(), reinterpret_cast<uint64_t>(word(page)));
    };
    // A block in which nobody else has anything: the kernel does not empty a part of one in which it has a
    // page.
    std::map<uint64_t, uint64_t> ours;
    uint64_t pages = 0;
    uint64_t block = 0;
    for (; block == 0 && pages < kMostPages; pages++) {
        *word(pages) = pages ^ 0x5a5a;
        const uint64_t in = frame(pages) / kBlock;
        if (++ours[in] == kBlock && pages >= kLeastPages) block = in;
    }
    REQUIRE(block != 0);
    const uint64_t before = free_pages();
    {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        const uint64_t top = device.info().top_pfn;
        std::vector<uint64_t> bits((top + 63) / 64);
        smig_prepare argument{};
        argument.size = sizeof argument;
        argument.spare_pages = 8192;
        argument.vacant_bitmap = reinterpret_cast<uint64_t>(bits.data());
        argument.vacant_bitmap_bytes = bits.size() * 8;
        argument.avoid_start = top;
        argument.avoid_pages = 1;
        CHECK(device.call(SMIG_IOC_PREPARE, argument) == EINVAL);
        argument.avoid_start = top + 1;
        argument.avoid_pages = ~0ULL;
        CHECK(device.call(SMIG_IOC_PREPARE, argument) == EINVAL);
        argument.avoid_start = block * kBlock;
        argument.avoid_pages = kBlock;
        REQUIRE(device.call(SMIG_IOC_PREPARE, argument) == 0);
        CHECK(argument.avoided_pages >= kBlock / 2);
        CHECK(argument.avoided_pages <= kBlock);
        uint64_t vacated = 0;
        for (uint64_t pfn = argument.avoid_start; pfn < argument.avoid_start + kBlock; pfn++)
            vacated += bits[pfn / 64] >> (pfn % 64) & 1;
        CHECK(vacated >= argument.avoided_pages);
        uint64_t wrong = 0;
        uint64_t in_vacant = 0;
        for (uint64_t page = 0; page < pages; page++) {
            wrong += *word(page) != (page ^ 0x5a5a);
            const uint64_t pfn = frame(page);
            in_vacant += bits[pfn / 64] >> (pfn % 64) & 1;
        }
        CHECK(wrong == 0);
        CHECK(in_vacant == 0);
    }
    CHECK(free_pages() + 2000 > before);
}

TEST_CASE("CAPTURE without PREPARE, or with a bitmap too short, is refused and the guest runs") {
    Ticker ticker;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    Captured captured;
    CHECK(captured.take(device) == EBADFD);
    REQUIRE(prepare(device) == 0);
    captured.answer.image_bitmap_bytes = 8;
    CHECK(device.call(SMIG_IOC_CAPTURE, captured.answer) == EINVAL);
    CHECK(ticker.runs());
}

TEST_CASE("a failure at any step of the stop is named and undone") {
    Ticker ticker;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    for (uint32_t step = SMIG_STEP_NOTIFY; step <= SMIG_STEP_COPY; step++) {
        CAPTURE(step);
        REQUIRE(prepare(device) == 0);
        Captured captured;
        fail_at(step);
        CHECK(captured.take(device) == EIO);
        CHECK(captured.answer.failed_step == step + 1);
        CHECK(device.state() == SMIG_STATE_SOURCE);
        CHECK(ticker.runs());
    }
    Captured captured;
    CHECK(captured.take(device) == EBADFD);
    REQUIRE(prepare(device) == 0);
    CHECK(captured.take(device) == 0);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
    CHECK(captured.take(device) == EBADFD);
    CHECK(ticker.runs());
}

TEST_CASE("a captured guest stands still, its image is whole, and a thaw lets it go on") {
    Ticker ticker;
    const uint64_t known = ticker.pfn();
    REQUIRE(known != 0);
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    Captured captured;
    REQUIRE(captured.take(device) == 0);
    CHECK(captured.answer.role == SMIG_ROLE_SOURCE);
    CHECK(device.state() == SMIG_STATE_CAPTURED);
    CHECK(ticker.stands_still());

    uint64_t bits = 0;
    for (uint64_t word : captured.bitmap) bits += static_cast<uint64_t>(std::popcount(word));
    CHECK(bits == captured.answer.header.image_pages);
    CHECK(captured.has(known));
    CHECK(captured.has(captured.answer.header.handover_pfn));
    CHECK(captured.has(captured.answer.header.resume_pa >> 12));
    CHECK(captured.has(captured.answer.header.cr3 >> 12));
    CHECK(captured.answer.pages[SMIG_CLASS_OWN] >= captured.answer.shadow_pages);
    CHECK(captured.answer.pages[SMIG_CLASS_FREE] > 0);

    std::vector<uint64_t> page(512), pfns{known};
    std::vector<uint8_t> status(SMIG_MAX_BATCH);
    smig_read read = reading(pfns, status, page.data());
    REQUIRE(device.call(SMIG_IOC_READ, read) == 0);
    CHECK(status[0] == SMIG_PAGE_DATA);
    CHECK(page[0] == Ticker::kPattern);
    CHECK(page[511] == Ticker::kPattern + 511);

    read.nr = 0;
    CHECK(device.call(SMIG_IOC_READ, read) == EINVAL);
    read.nr = SMIG_MAX_BATCH + 1;
    CHECK(device.call(SMIG_IOC_READ, read) == EINVAL);
    read.nr = 1;
    pfns[0] = ~0ULL;
    CHECK(device.call(SMIG_IOC_READ, read) == EINVAL);
    for (pfns[0] = 0; captured.has(pfns[0]); pfns[0]++) continue;
    CHECK(device.call(SMIG_IOC_READ, read) == EINVAL);  // a frame that is not in the image
    pfns[0] = known;
    read.data = 0x10;
    CHECK(device.call(SMIG_IOC_READ, read) == EFAULT);

    CHECK(device.plain(SMIG_IOC_VERIFY) == 0);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
    CHECK(device.state() == SMIG_STATE_SOURCE);
    CHECK(ticker.runs());
}

TEST_CASE("memory that the kernel does not map is in the image as it is") {
    const SecretHolder holder;
    std::vector<uint64_t> pfns;
    for (size_t page = 0; page < SecretHolder::kPages; page++) pfns.push_back(holder.pfn(page));
    REQUIRE(pfns.front() != 0);
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    SUBCASE("without a pass") {}
    SUBCASE("after a pass, which leaves it for the stop") {
        REQUIRE(track(device) == 0);
        Pass pass;
        REQUIRE(pass.take(device) == 0);
        CHECK(pass.later >= SecretHolder::kPages);
    }
    Captured captured;
    REQUIRE(captured.take(device) == 0);

    std::vector<uint64_t> words(pfns.size() * 512);
    std::vector<uint8_t> status(pfns.size());
    smig_read read = reading(pfns, status, words.data());
    REQUIRE(device.call(SMIG_IOC_READ, read) == 0);
    for (size_t page = 0; page < pfns.size(); page++) {
        CAPTURE(page);
        CHECK(captured.has(pfns[page]));
        CHECK(status[page] == SMIG_PAGE_DATA);
        size_t wrong = 0;
        for (size_t index = 0; index < 512; index++)
            wrong += words[page * 512 + index] != SecretHolder::word(page, index);
        CHECK(wrong == 0);
    }
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
}

TEST_CASE("closing a captured file undoes the stop") {
    Ticker ticker;
    {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(prepare(device) == 0);
        Captured captured;
        REQUIRE(captured.take(device) == 0);
    }
    CHECK(Device().state() == SMIG_STATE_IDLE);
    CHECK(ticker.runs());
}

TEST_CASE("killing the stop process while the guest is captured undoes the stop; an exempt process watches") {
    Ticker ticker;
    Device watcher;
    REQUIRE(watcher.plain(SMIG_IOC_EXEMPT) == 0);
    const pid_t stop_process = fork();
    if (stop_process == 0) {
        mlockall(MCL_CURRENT | MCL_FUTURE);
        Device device;
        Captured captured;
        if (device.begin(SMIG_ROLE_SOURCE) || prepare(device) || captured.take(device)) _exit(1);
        for (;;) pause();
    }
    for (int i = 0; i < 1000 && watcher.state() != SMIG_STATE_CAPTURED; i++) usleep(10000);
    CHECK(watcher.state() == SMIG_STATE_CAPTURED);
    CHECK(ticker.stands_still());
    kill(stop_process, SIGKILL);
    waitpid(stop_process, nullptr, 0);
    CHECK(ticker.runs());
    CHECK(watcher.state() == SMIG_STATE_IDLE);
    CHECK(watcher.plain(SMIG_IOC_EXEMPT, SMIG_EXEMPT_CLEAR) == 0);
}

TEST_CASE("ten stops in a row leave memory as it was") {
    Ticker ticker;
    const uint64_t before = free_pages();
    for (int i = 0; i < 10; i++) {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(prepare(device) == 0);
        Captured captured;
        REQUIRE(captured.take(device) == 0);
        REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
        CHECK(ticker.runs());
    }
    CHECK(free_pages() + 2000 > before);
}
