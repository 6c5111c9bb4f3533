// SPDX-License-Identifier: Apache-2.0
#include "tests/kmod/checked_load.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <thread>

#include "tests/kmod/ring.hpp"

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWords = kPage / 8;
constexpr int kMaxProcesses = 8;
constexpr int kThreads = 2;
constexpr size_t kMostWays = 32;

using Page = uint64_t[kWords];

}  // namespace

struct CheckedLoad::Shared {
    struct alignas(64) Steps {
        std::atomic<uint64_t> done;
    } steps[kMaxProcesses][kThreads];
    std::atomic<uint64_t> found_away[kMostWays];
    std::atomic<bool> counting, bad;
    char text[256];
};

namespace {

uint64_t word(size_t page, uint64_t generation, size_t index) {
    return generation == 0
               ? 0
               : (page * 0x9e3779b97f4a7c15ULL + generation * 0xff51afd7ed558ccdULL) ^ (index << 3);
}

// One thread's memory.
class Region {
public:
    Region(size_t pages, unsigned seed, std::atomic<bool>* bad, char* text, size_t text_bytes)
        : pages_(pages),
          chance_(seed),
          bad_(bad),
          text_(text),
          text_bytes_(text_bytes),
          generation_(pages, 1) {
        at_ = static_cast<char*>(
            mmap(nullptr, (pages + 1) * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        scratch_ = at_ + pages * kPage;
        for (size_t i = 0; i < pages; i++) write(i);
        direct_ = open(("/disk/direct" + std::to_string(getpid()) + "." + std::to_string(seed)).c_str(),
                       O_RDWR | O_CREAT | O_DIRECT, 0600);
        own_memory_ = open("/proc/self/mem", O_RDWR);
        page_map_ = open("/proc/self/pagemap", O_RDONLY);
        if (pipe(pipe_) != 0) fail("pipe", 0, 0);
    }

    // One of kWays, by number.
    void step(size_t way);
    // Whether a step of that kind found its first page away, so that it had to come first.
    bool was_away() const { return was_away_; }

    void read_run(size_t page, size_t run) {
        for (size_t i = page; i < page + run; i++) check("read", i);
    }
    void rewritten(size_t page, size_t) { rewrite(page); }
    void one_word(size_t page, size_t) {
        words(page)[pick(kWords)] = 1;
        write(page);
    }
    // Copy on write on both sides.
    void forked(size_t page, size_t) {
        const pid_t child = fork();
        if (child == 0) {
            check("child", page);
            rewrite(page);
            check("child's own", page);
            _exit(0);
        }
        rewrite(page);
        check("parent", page);
        if (child > 0) waitpid(child, nullptr, 0);
    }
    void protected_read(size_t page, size_t run) {
        mprotect(address(page), run * kPage, PROT_READ);
        for (size_t i = page; i < page + run; i++) check("read-only", i);
        mprotect(address(page), run * kPage, PROT_NONE);
        mprotect(address(page), run * kPage, PROT_READ | PROT_WRITE);
        rewrite(page);
    }
    // The place stays taken (DONTUNMAP), or another thread's mapping might come there.
    void moved(size_t page, size_t run) {
        constexpr int kHow = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        const size_t bytes = run * kPage;
        void* room = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) return;
        if (mremap(address(page), bytes, bytes, kHow, room) == room) {
            check_words("moved", page, static_cast<uint64_t*>(room));
            if (mremap(room, bytes, bytes, kHow, address(page)) != address(page))
                fail("mremap back", page, 0);
        } else if (errno != EFAULT) {  // it is of more than one mapping now
            fail("mremap", page, 0);
        }
        munmap(room, bytes);
    }
    void dropped(size_t page, size_t run) {
        madvise(address(page), run * kPage, MADV_DONTNEED);
        for (size_t i = page; i < page + run; i++) {
            generation_[i] = 0;
            check("dropped", i);
            generation_[i] = 1 + chance_() % 1000;
            write(i);
        }
    }
    void own_memory(size_t page, size_t) {
        Page copy;
        const auto offset = static_cast<off_t>(reinterpret_cast<uintptr_t>(address(page)));
        if (pread(own_memory_, copy, kPage, offset) != static_cast<ssize_t>(kPage))
            return fail("/proc/self/mem", page, 0);
        check_words("/proc/self/mem", page, copy);
        generation_[page]++;
        fill(page, copy);
        if (pwrite(own_memory_, copy, kPage, offset) != static_cast<ssize_t>(kPage))
            fail("/proc/self/mem written", page, 0);
    }
    void other_process(size_t page, size_t) {
        Page copy;
        iovec here{copy, kPage}, there{address(page), kPage};
        const pid_t self = getpid();
        if (process_vm_readv(self, &here, 1, &there, 1, 0) != static_cast<ssize_t>(kPage))
            return fail("process_vm_readv", page, 0);
        check_words("process_vm_readv", page, copy);
        generation_[page]++;
        fill(page, copy);
        if (process_vm_writev(self, &here, 1, &there, 1, 0) != static_cast<ssize_t>(kPage))
            fail("process_vm_writev", page, 0);
    }
    void spliced(size_t page, size_t) {
        Page copy;
        iovec piece{address(page), kPage};
        if (vmsplice(pipe_[1], &piece, 1, 0) != static_cast<ssize_t>(kPage)) return fail("vmsplice", page, 0);
        if (read(pipe_[0], copy, kPage) != static_cast<ssize_t>(kPage)) return fail("pipe", page, 0);
        check_words("vmsplice", page, copy);
    }
    // The kernel reads the word, through a private and through a shared key.
    void futexes(size_t page, size_t) {
        auto* low = reinterpret_cast<uint32_t*>(address(page));
        const auto expected = static_cast<uint32_t>(word(page, generation_[page], 0));
        for (int flag : {FUTEX_PRIVATE_FLAG, 0}) {
            if (syscall(SYS_futex, low, FUTEX_WAIT | flag, expected + 1, nullptr, nullptr, 0) != -1 ||
                errno != EAGAIN)
                fail("futex with a wrong value", page, *low);
            timespec soon{0, 1000};
            if (syscall(SYS_futex, low, FUTEX_WAIT | flag, expected, &soon, nullptr, 0) != -1 ||
                errno != ETIMEDOUT)
                fail("futex with the right value", page, *low);
        }
    }
    void direct(size_t page, size_t) {
        if (direct_ < 0) return;
        if (pwrite(direct_, address(page), kPage, 0) != static_cast<ssize_t>(kPage))
            return fail("direct write", page, 0);
        std::memset(scratch_, 0, kPage);
        if (pread(direct_, scratch_, kPage, 0) != static_cast<ssize_t>(kPage))
            return fail("direct read", page, 0);
        check_words("direct", page, reinterpret_cast<uint64_t*>(scratch_));
    }

    void given_up(size_t page, size_t run) {
        madvise(address(page), run * kPage, pick(2) ? MADV_PAGEOUT : MADV_COLD);
    }
    void locked(size_t page, size_t run) {
        mlock(address(page), run * kPage);
        check("mlock", page);
        munlock(address(page), run * kPage);
    }
    // Of a child that shares the page until then, while it stands still.
    void traced(size_t page, size_t) {
        const pid_t child = fork();
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            raise(SIGSTOP);
            _exit(0);
        }
        if (child < 0 || waitpid(child, nullptr, __WALL) != child) return;
        const size_t index = pick(kWords);
        auto* const there = words(page) + index;
        errno = 0;
        const auto peeked = static_cast<uint64_t>(ptrace(PTRACE_PEEKDATA, child, there, nullptr));
        if (errno != 0 || peeked != word(page, generation_[page], index)) fail("ptrace", page, peeked);
        if (ptrace(PTRACE_POKEDATA, child, there, ~peeked) != 0 ||
            static_cast<uint64_t>(ptrace(PTRACE_PEEKDATA, child, there, nullptr)) != ~peeked)
            fail("ptrace written", page, 0);
        kill(child, SIGKILL);
        waitpid(child, nullptr, __WALL);
    }
    void ring_written(size_t page, size_t) {
        if (!ring_.works()) return;
        Page copy;
        if (ring_.transfer(IORING_OP_WRITE, pipe_[1], address(page), kPage) != static_cast<int>(kPage) ||
            read(pipe_[0], copy, kPage) != static_cast<ssize_t>(kPage))
            return fail("io_uring", page, 0);
        check_words("io_uring", page, copy);
    }
    // Pinned for good, as far as the kernel knows.
    void ring_pinned(size_t page, size_t) {
        if (!ring_.works()) return;
        if (!ring_.pin(address(page), kPage)) return fail("io_uring pins", page, 0);
        check("io_uring pinned", page);
        Page copy;
        generation_[page]++;
        fill(page, copy);
        if (write_all(copy) &&
            ring_.transfer(IORING_OP_READ, pipe_[0], address(page), kPage) != static_cast<int>(kPage))
            fail("io_uring read", page, 0);
        if (!ring_.unpin()) fail("io_uring unpins", page, 0);
    }

private:
    size_t pick(size_t below) { return chance_() % below; }
    char* address(size_t page) const { return at_ + page * kPage; }
    uint64_t* words(size_t page) const { return reinterpret_cast<uint64_t*>(address(page)); }

    void fail(const char* how, size_t page, uint64_t found) {
        if (!bad_->exchange(true))
            std::snprintf(text_, text_bytes_, "%s: process %d page %zu generation %llu is %llx (errno %d)",
                          how, getpid(), page, static_cast<unsigned long long>(generation_[page]),
                          static_cast<unsigned long long>(found), errno);
    }
    void check_words(const char* how, size_t page, const uint64_t* found) {
        for (size_t i = 0; i < kWords; i++)
            if (found[i] != word(page, generation_[page], i)) return fail(how, page, found[i]);
    }
    void check(const char* how, size_t page) { check_words(how, page, words(page)); }
    bool write_all(const Page& from) const {
        return ::write(pipe_[1], from, kPage) == static_cast<ssize_t>(kPage);
    }
    // Its entry stands for a page that is not mapped; a page that was never there is none.
    bool away(size_t page) const {
        uint64_t entry = 0;
        const auto offset = static_cast<off_t>(reinterpret_cast<uintptr_t>(address(page)) / kPage * 8);
        return pread(page_map_, &entry, 8, offset) == 8 && (entry >> 62 & 3) == 1;
    }
    void fill(size_t page, uint64_t* to) const {
        for (size_t i = 0; i < kWords; i++) to[i] = word(page, generation_[page], i);
    }
    void write(size_t page) { fill(page, words(page)); }
    void rewrite(size_t page) {
        generation_[page]++;
        write(page);
    }

    size_t pages_;
    std::mt19937_64 chance_;
    std::atomic<bool>* bad_;
    char* text_;
    size_t text_bytes_;
    std::vector<uint64_t> generation_;
    char *at_, *scratch_;
    int direct_, own_memory_, page_map_, pipe_[2];
    Ring ring_;
    bool was_away_ = false;
};

struct Way {
    const char* name;
    void (Region::*go)(size_t page, size_t run);
};

constexpr Way kWays[] = {
    {"read", &Region::read_run},
    {"write", &Region::rewritten},
    {"write one word", &Region::one_word},
    {"fork", &Region::forked},
    {"mprotect", &Region::protected_read},
    {"mremap", &Region::moved},
    {"MADV_DONTNEED", &Region::dropped},
    {"MADV_PAGEOUT, MADV_COLD", &Region::given_up},
    {"/proc/PID/mem", &Region::own_memory},
    {"process_vm_readv, _writev", &Region::other_process},
    {"ptrace", &Region::traced},
    {"vmsplice", &Region::spliced},
    {"futex", &Region::futexes},
    {"O_DIRECT", &Region::direct},
    {"mlock", &Region::locked},
    {"io_uring write", &Region::ring_written},
    {"io_uring, pinned", &Region::ring_pinned},
};

void Region::step(size_t way) {
    const size_t page = pick(pages_), most = pick(8) ? 2 : 16;
    const size_t run = 1 + pick(std::min(most, pages_ - page));
    was_away_ = away(page);
    (this->*kWays[way].go)(page, run);
    check("after", page);
}

}  // namespace

CheckedLoad::CheckedLoad(int processes, size_t pages_each) {
    shared_ = static_cast<Shared*>(
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int number = 0; number < processes; number++) {
        const pid_t child = fork();
        if (child != 0) {
            children_.push_back(child);
            continue;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        for (const int number_of : {SIGSEGV, SIGBUS, SIGABRT}) signal(number_of, SIG_DFL);
        const auto work = [&](int thread) {
            Region region(pages_each / kThreads, static_cast<unsigned>(number * kThreads + thread),
                          &shared_->bad, shared_->text, sizeof shared_->text);
            std::minstd_rand chance(static_cast<unsigned>(number * kThreads + thread) + 1);
            while (!shared_->bad) {
                const size_t way = chance() % std::size(kWays);
                region.step(way);
                if (region.was_away() && shared_->counting) ++shared_->found_away[way];
                if (++shared_->steps[number][thread].done % 8 == 0) usleep(1000);
            }
        };
        std::vector<std::thread> threads;
        for (int thread = 1; thread < kThreads; thread++) threads.emplace_back(work, thread);
        work(0);
        for (auto& thread : threads) thread.join();
        _exit(1);
    }
    runs();
}

CheckedLoad::~CheckedLoad() {
    for (const pid_t child : children_) kill(-child, SIGKILL);
    for (const pid_t child : children_) waitpid(child, nullptr, 0);
    if (system("rm -f /disk/direct*") != 0) std::puts("no shell");
    munmap(shared_, sizeof(Shared));
}

uint64_t CheckedLoad::steps() const {
    uint64_t sum = 0;
    for (const auto& process : shared_->steps)
        for (const auto& thread : process) sum += thread.done;
    return sum;
}

bool CheckedLoad::runs(const std::function<void()>& meanwhile) const {
    std::vector<uint64_t> before;
    for (size_t i = 0; i < children_.size(); i++)
        for (const auto& thread : shared_->steps[i]) before.push_back(thread.done);
    const time_t end = time(nullptr) + 20;
    while (time(nullptr) <= end && !shared_->bad) {
        size_t moving = 0;
        for (size_t i = 0; i < before.size(); i++)
            moving += shared_->steps[i / kThreads][i % kThreads].done != before[i];
        if (moving == before.size()) return true;
        meanwhile();
        usleep(1000);
    }
    return false;
}

void CheckedLoad::count(bool on) {
    shared_->counting = on;
}

std::vector<CheckedLoad::Reached> CheckedLoad::reached() const {
    static_assert(std::size(kWays) <= kMostWays);
    std::vector<Reached> all;
    for (size_t way = 0; way < std::size(kWays); way++)
        all.push_back({kWays[way].name, shared_->found_away[way]});
    return all;
}

std::string CheckedLoad::wrong() const {
    return shared_->bad ? shared_->text : "";
}

bool CheckedLoad::kill_one(const std::function<void()>& meanwhile) {
    kill(-children_.back(), SIGKILL);
    const time_t end = time(nullptr) + 20;
    while (waitpid(children_.back(), nullptr, WNOHANG) == 0) {
        if (time(nullptr) > end) return false;
        meanwhile();
        usleep(1000);
    }
    children_.pop_back();
    return true;
}
