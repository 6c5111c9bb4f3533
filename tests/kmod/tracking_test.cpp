// SPDX-License-Identifier: Apache-2.0
// Passes over a busy guest: nothing that changed may be taken for unchanged.  The judge is a hash of every
// page of the image, taken while the machine stands still, against the hash of what was read.
#include <doctest/doctest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>

#include "tests/kmod/device.hpp"
#include "tests/kmod/load.hpp"
#include "tests/kmod/passes.hpp"
#include "tests/kmod/ring.hpp"

namespace {

// How many captures under load a run of this program judges; more on request.
int captures() {
    const char* text = std::getenv("CAPTURES");
    return text ? std::atoi(text) : 6;
}

void set_hooks(const char* mask) {
    REQUIRE(write_file("/sys/module/selfmigrate/parameters/hooks", mask));
}

// A file of 1 MiB whose page cache is written through a mapping that then goes away.
class MappedFile {
public:
    MappedFile() {
        REQUIRE(fd_ >= 0);
        REQUIRE(ftruncate(fd_, kBytes) == 0);
        write();
    }
    MappedFile(const MappedFile&) = delete;
    ~MappedFile() { close(fd_); }
    void write() {
        void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        REQUIRE(at != MAP_FAILED);
        for (size_t i = 0; i < kBytes; i += 4096) ++static_cast<char*>(at)[i];
        munmap(at, kBytes);
    }

private:
    static constexpr size_t kBytes = 1 << 20;
    int fd_ = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
};

// Memory of this process that a test writes.
class Written {
public:
    static constexpr size_t kPages = 4096;

    Written(int flags, int fd, int advice) {
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
        REQUIRE(at_ != MAP_FAILED);
        at_ = mmap(at_, kPages * 4096, PROT_NONE, flags | MAP_FIXED, fd, 0);
        REQUIRE(at_ != MAP_FAILED);
        REQUIRE(madvise(at_, kPages * 4096, advice) == 0);
        // this process' memory is locked: it gets its pages as soon as it may touch them
        REQUIRE(mprotect(at_, kPages * 4096, PROT_READ | PROT_WRITE) == 0);
        write();
        REQUIRE((advice != MADV_HUGEPAGE || has_large()));
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);  // from here on nobody moves pages together
    }
    Written(const Written&) = delete;
    ~Written() {
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
        munmap(at_, kPages * 4096);
    }

    void write() {
        for (size_t i = 0; i < kPages; i++) ++static_cast<char*>(at_)[i * 4096];
    }
    void* at(size_t page) const { return static_cast<char*>(at_) + page * 4096; }
    // How many of its pages from `first` to `end` are in the bitmap.
    size_t in(const std::vector<uint64_t>& bitmap, size_t first, size_t end) const {
        size_t count = 0;
        for (size_t i = first; i < end; i++) {
            const uint64_t pfn = pfn_of(getpid(), reinterpret_cast<uint64_t>(at(i)));
            count += bitmap[pfn / 64] >> (pfn % 64) & 1;
        }
        return count;
    }
    size_t in(const Pass& pass) const { return in(pass.bitmap, 0, kPages); }

private:
    void* at_ = aligned();

    static bool has_large() {
        std::ifstream rollup("/proc/self/smaps_rollup");
        uint64_t kib = 0;
        for (std::string word; rollup >> word;)
            if (word == "AnonHugePages:") rollup >> kib;
        return kib > kPages * 4 / 2;
    }
    // Where large pages fit.
    static void* aligned() {
        constexpr size_t kLarge = 2 << 20;
        void* at = mmap(nullptr, kPages * 4096 + kLarge, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        const auto address = reinterpret_cast<uintptr_t>(at);
        return at == MAP_FAILED ? at : reinterpret_cast<void*>((address + kLarge - 1) & ~(kLarge - 1));
    }
};

// Passes, what happens then, and a capture; what was missed, or -1 when memory did not suffice.
int64_t judge(int passes, const std::function<void()>& then = [] {}) {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    for (int number = 1; number <= passes; number++) {
        Pass pass;
        REQUIRE(pass.take(device) == 0);
        CHECK(pass.answer.number == static_cast<uint64_t>(number));
        std::printf(
            "  pass %d: %llu pages of %llu in use: %llu changed; sent %llu, zero %llu, same %llu, free %llu, "
            "later %llu; user %llu us, kernel %llu us\n",
            number, pass.answer.pages, pass.answer.in_use_pages, pass.answer.changed_pages,
            static_cast<unsigned long long>(pass.data), static_cast<unsigned long long>(pass.zero),
            static_cast<unsigned long long>(pass.same), static_cast<unsigned long long>(pass.free),
            static_cast<unsigned long long>(pass.later), pass.answer.user_us, pass.answer.kernel_us);
        usleep(static_cast<useconds_t>(50000 + 100000 * (number % 3)));
    }
    then();
    smig_prepare again{};
    again.size = sizeof again;
    again.extra_shadow_pages = 2048;
    REQUIRE(device.call(SMIG_IOC_PREPARE, again) == 0);
    Judged judged;
    const int failed = judged.take(device);
    if (failed == EAGAIN || failed == ENOSPC) return -1;
    REQUIRE(failed == 0);
    const smig_capture& answer = judged.answer;
    std::printf(
        "  stop: %llu of %llu pages to send (anon %llu, cache %llu, kernel %llu), same %llu, verified %llu, "
        "missed %llu; find user %llu us, kernel %llu us, in all %llu, copy %llu us\n",
        answer.send_pages, answer.header.image_pages, answer.send_by_class[SMIG_CLASS_ANON],
        answer.send_by_class[SMIG_CLASS_CACHE], answer.send_by_class[SMIG_CLASS_KERNEL], answer.same_pages,
        answer.verified_pages, answer.missed_pages, answer.find_user_us, answer.find_kernel_us,
        answer.source_us[SMIG_STEP_FIND], answer.source_us[SMIG_STEP_COPY]);
    CHECK(answer.verified_pages > answer.header.image_pages / 2);
    uint64_t bits = 0;
    for (uint64_t word : judged.send) bits += static_cast<uint64_t>(std::popcount(word));
    CHECK(bits == answer.send_pages);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
    return static_cast<int64_t>(answer.missed_pages);
}

// A capture in a guest that is quiet, with room for all that a test has written.
void nothing_is_missed(const Device& device) {
    smig_prepare again{};
    again.size = sizeof again;
    again.extra_shadow_pages = 2 * Written::kPages;
    REQUIRE(device.call(SMIG_IOC_PREPARE, again) == 0);
    Judged judged;
    REQUIRE(judged.take(device) == 0);
    CHECK(judged.answer.verified_pages > judged.answer.header.image_pages / 2);
    CHECK(judged.answer.missed_pages == 0);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
}

}  // namespace

TEST_CASE("under load, nothing that changed is taken for unchanged") {
    Load::describe();
    Load load;
    Ticker ticker;
    int judged = 0;
    int64_t wrong = 0;
    for (int i = 0; i < captures(); i++) {
        CAPTURE(i);
        const int64_t missed = judge(1 + i % 4);
        CHECK(missed <= 0);
        wrong += std::max<int64_t>(missed, 0);
        judged += missed >= 0;
        CHECK(ticker.runs());
    }
    CHECK(judged > 0);
    std::printf("judged %d captures under load: %lld changed pages unsent\n", judged,
                static_cast<long long>(wrong));
}

TEST_CASE("without its hooks the tracker misses pages, and the judge sees it") {
    MappedFile file;
    const auto write = [&] { file.write(); };
    CHECK(judge(2, write) == 0);
    set_hooks("0");
    CHECK(judge(2, write) > 200);
    set_hooks("4294967295");
}

TEST_CASE("a page is the same until it is written, then it is sent again") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    Pass pass;
    CHECK(pass.take(device) == EBADFD);  // PREPARE comes first
    CHECK(track(device) == EBADFD);
    REQUIRE(prepare(device) == 0);
    CHECK(pass.take(device) == EBADFD);  // then TRACK
    CHECK(track(device, 8) == EINVAL);
    REQUIRE(track(device) == 0);
    REQUIRE(pass.take(device) == 0);
    CHECK(pass.data > pass.answer.in_use_pages / 2);
    Pass second;
    REQUIRE(second.take(device) == 0);
    CHECK(second.data < pass.data / 2);
    CHECK(track(device, SMIG_TRACK_OFF) == 0);
    CHECK(second.take(device) == EBADFD);
}

TEST_CASE("what is written in a pass before it is read is not news to the next one") {
    const char* kLarge = "/sys/kernel/mm/transparent_hugepage/enabled";
    int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1, advice = MADV_NOHUGEPAGE;
    SUBCASE("anonymous") {}
    SUBCASE("anonymous, large") {
        REQUIRE(write_file(kLarge, "madvise"));
        advice = MADV_HUGEPAGE;
    }
    SUBCASE("a file's") {
        flags = MAP_SHARED;
        fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        REQUIRE(ftruncate(fd, Written::kPages * 4096) == 0);
    }
    Written memory(flags, fd, advice);
    close(fd);
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    for (int number = 1; number <= 2; number++) {
        CAPTURE(number);
        Pass pass, next;
        REQUIRE(pass.begin(device) == 0);
        CHECK(memory.in(pass) > Written::kPages * 9 / 10);
        memory.write();
        REQUIRE(pass.read_all(device) == 0);
        REQUIRE(next.begin(device) == 0);
        CHECK(memory.in(next) < Written::kPages / 20);
        REQUIRE(next.read_all(device) == 0);
        memory.write();
    }
    nothing_is_missed(device);
}

TEST_CASE("what a device may write from some moment of a pass on is looked at in the stop") {
    constexpr size_t kPinned = 64;
    Ring ring;
    REQUIRE(ring.works());
    Written memory(MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_NOHUGEPAGE);
    const std::string content(kPinned * 4096, 'd');
    std::ofstream("/disk/direct") << content;
    sync();
    const int file = open("/disk/direct", O_RDONLY | O_DIRECT | O_CLOEXEC);
    REQUIRE(file >= 0);
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    Pass pass;
    REQUIRE(pass.begin(device) == 0);
    REQUIRE(ring.pin(memory.at(0), kPinned * 4096));
    REQUIRE(pass.read_all(device) == 0);
    set_hooks("0");  // as if the driver did not say what it has received
    CHECK(ring.transfer(IORING_OP_READ_FIXED, file, memory.at(0), kPinned * 4096) == kPinned * 4096);
    Judged judged;
    const int failed = judged.take(device, 0);
    set_hooks("4294967295");
    REQUIRE(failed == 0);
    CHECK(memory.in(judged.send, 0, kPinned) == kPinned);
    CHECK(memory.in(judged.send, kPinned, Written::kPages) < Written::kPages / 20);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
    CHECK(ring.unpin());
    close(file);
    unlink("/disk/direct");
}

TEST_CASE("what is written a good deal can be left for the end of a pass") {
    const char* kLarge = "/sys/kernel/mm/transparent_hugepage/enabled";
    int advice = MADV_NOHUGEPAGE;
    SUBCASE("small pages") {}
    SUBCASE("large pages") {
        REQUIRE(write_file(kLarge, "madvise"));
        advice = MADV_HUGEPAGE;
    }
    Written hot(MAP_PRIVATE | MAP_ANONYMOUS, -1, advice), cold(MAP_PRIVATE | MAP_ANONYMOUS, -1, advice);
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    Pass first, second, third, fourth, fifth;
    REQUIRE(first.begin(device, 8) == EINVAL);
    REQUIRE(first.take(device, SMIG_PASS_NO_ANON) == 0);
    CHECK(hot.in(first) + cold.in(first) == 0);
    hot.write();
    REQUIRE(second.take(device, SMIG_PASS_NO_HOT | SMIG_PASS_UNREAD) == 0);
    CHECK(hot.in(second) < Written::kPages / 20);
    CHECK(cold.in(second) > Written::kPages * 9 / 10);
    cold.write();
    REQUIRE(third.take(device, SMIG_PASS_UNREAD) == 0);
    CHECK(hot.in(third) > Written::kPages * 9 / 10);
    CHECK(cold.in(third) < Written::kPages / 20);
    hot.write();
    REQUIRE(fourth.take(device, SMIG_PASS_NO_HOT) == 0);
    CHECK(hot.in(fourth) < Written::kPages / 20);
    REQUIRE(fifth.begin(device) == 0);
    CHECK(hot.in(fifth) > Written::kPages * 9 / 10);
    nothing_is_missed(device);
}

TEST_CASE("a stop without passes sends everything; one after passes, less") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    Judged whole;
    CHECK(whole.take(device) == EINVAL);  // to verify takes TRACK with its flag
    REQUIRE(whole.take(device, 0) == 0);
    CHECK(whole.answer.send_pages == whole.answer.header.image_pages);
    CHECK(whole.send == whole.bitmap);
    REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
    REQUIRE(track(device) == 0);
    Pass pass;
    REQUIRE(pass.take(device) == 0);
    Pass second;
    REQUIRE(second.take(device) == 0);
    REQUIRE(prepare(device) == 0);
    Judged rest;
    REQUIRE(rest.take(device, 0) == 0);
    CHECK(rest.answer.send_pages < whole.answer.send_pages / 5);
    // what need not be sent cannot be read: it may have changed since
    uint64_t pfn = 0;
    while (!rest.has(pfn) || (rest.send[pfn / 64] >> (pfn % 64) & 1)) pfn++;
    std::vector<uint64_t> one{pfn};
    CHECK(pass.read(device, one) == EINVAL);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
}

TEST_CASE("where page tables are not trusted hashes tell the same") {
    set_hooks("0");
    MappedFile file;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device, SMIG_TRACK_HASH) == 0);
    Pass first, second;
    REQUIRE(first.take(device) == 0);
    REQUIRE(second.take(device) == 0);
    CHECK(second.answer.pages > first.answer.pages * 9 / 10);
    CHECK(second.same > second.answer.pages * 3 / 4);
    file.write();
    Judged rest;
    const int failed = rest.take(device, 0);
    set_hooks("4294967295");
    REQUIRE(failed == 0);
    CHECK(rest.answer.send_pages > 200);
    CHECK(rest.answer.send_pages < rest.answer.header.image_pages / 4);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
}

TEST_CASE("a failed stop loses no change: the next one finds what was written before it") {
    Load load;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    Pass pass;
    REQUIRE(pass.take(device) == 0);
    for (const uint32_t step :
         {SMIG_STEP_FREEZE_KTHREADS, SMIG_STEP_SYSCORE_SUSPEND, SMIG_STEP_FIND, SMIG_STEP_COPY}) {
        Judged failing;
        fail_at(step);
        CHECK(failing.take(device) == EIO);
        CHECK(failing.answer.failed_step == step + 1);
        usleep(50000);
        REQUIRE(prepare(device) == 0);
    }
    Judged judged;
    const int failed = judged.take(device);
    if (failed != ENOSPC) {
        REQUIRE(failed == 0);
        CHECK(judged.answer.verified_pages > 0);
        CHECK(judged.answer.missed_pages == 0);
        CHECK(device.plain(SMIG_IOC_THAW) == 0);
    }
}

TEST_CASE("only the owner maps the buffer, read-only") {
    const int fd = open("/dev/selfmigrate", O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    const auto map = [&](size_t pages, int protection, off_t offset = 0) {
        void* at = mmap(nullptr, pages * 4096, protection, MAP_SHARED, fd, offset);
        const bool ok = at != MAP_FAILED;
        if (ok) munmap(at, pages * 4096);
        return ok;
    };
    CHECK_FALSE(map(SMIG_BUFFER_PAGES, PROT_READ));
    smig_begin begin{sizeof begin, 0, SMIG_ROLE_SOURCE, 0};
    REQUIRE(ioctl(fd, SMIG_IOC_BEGIN, &begin) == 0);
    CHECK(map(SMIG_BUFFER_PAGES, PROT_READ));
    void* mapped = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(mapped != MAP_FAILED);
    CHECK(mprotect(mapped, 4096, PROT_READ | PROT_WRITE) == -1);
    munmap(mapped, 4096);
    CHECK_FALSE(map(SMIG_BUFFER_PAGES + 1, PROT_READ));
    CHECK_FALSE(map(1, PROT_READ | PROT_WRITE));
    CHECK_FALSE(map(1, PROT_READ, 4096));
    Device other;
    void* at = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, open("/dev/selfmigrate", O_RDWR | O_CLOEXEC), 0);
    CHECK(at == MAP_FAILED);
    close(fd);

    // a target has no such buffer
    const int target = open("/dev/selfmigrate", O_RDWR | O_CLOEXEC);
    smig_begin landing{sizeof landing, 0, SMIG_ROLE_TARGET, 0};
    REQUIRE(ioctl(target, SMIG_IOC_BEGIN, &landing) == 0);
    CHECK(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, target, 0) == MAP_FAILED);
    close(target);
}
