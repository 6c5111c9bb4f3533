// SPDX-License-Identifier: Apache-2.0
#include "tests/kmod/checked_load.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWords = kPage / 8;
constexpr int kMaxProcesses = 8;
constexpr int kThreads = 2;

using Page = uint64_t[kWords];

}  // namespace

struct CheckedLoad::Shared {
    struct alignas(64) Steps {
        std::atomic<uint64_t> done;
    } steps[kMaxProcesses][kThreads];
    std::atomic<bool> bad;
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
        if (pipe(pipe_) != 0) fail("pipe", 0, 0);
    }

    void step() {
        const size_t page = pick(pages_), run = 1 + pick(std::min<size_t>(16, pages_ - page));
        switch (pick(17)) {
            case 0:
            case 1:
            case 2:
                for (size_t i = page; i < page + run; i++) check("read", i);
                break;
            case 3:
            case 4:
                rewrite(page);
                break;
            case 5:
                forked(page);
                break;
            case 6:
                protected_read(page, run);
                break;
            case 7:
                moved(page, run);
                break;
            case 8:
                dropped(page, run);
                break;
            case 9:
                madvise(address(page), run * kPage, pick(2) ? MADV_PAGEOUT : MADV_COLD);
                break;
            case 10:
                own_memory(page);
                break;
            case 11:
                other_process(page);
                break;
            case 12:
                spliced(page);
                break;
            case 13:
                futexes(page);
                break;
            case 14:
                direct(page);
                break;
            case 15:
                mlock(address(page), run * kPage);
                check("mlock", page);
                munlock(address(page), run * kPage);
                break;
            case 16:
                one_word(page);
                break;
        }
        check("after", page);
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
    void fill(size_t page, uint64_t* to) const {
        for (size_t i = 0; i < kWords; i++) to[i] = word(page, generation_[page], i);
    }
    void write(size_t page) { fill(page, words(page)); }
    void rewrite(size_t page) {
        generation_[page]++;
        write(page);
    }
    void one_word(size_t page) {
        words(page)[pick(kWords)] = 1;
        write(page);
    }

    // Copy on write on both sides.
    void forked(size_t page) {
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
    void own_memory(size_t page) {
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
    void other_process(size_t page) {
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
    void spliced(size_t page) {
        Page copy;
        iovec piece{address(page), kPage};
        if (vmsplice(pipe_[1], &piece, 1, 0) != static_cast<ssize_t>(kPage)) return fail("vmsplice", page, 0);
        if (read(pipe_[0], copy, kPage) != static_cast<ssize_t>(kPage)) return fail("pipe", page, 0);
        check_words("vmsplice", page, copy);
    }
    // The kernel reads the word, through a private and through a shared key.
    void futexes(size_t page) {
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
    void direct(size_t page) {
        if (direct_ < 0) return;
        if (pwrite(direct_, address(page), kPage, 0) != static_cast<ssize_t>(kPage))
            return fail("direct write", page, 0);
        std::memset(scratch_, 0, kPage);
        if (pread(direct_, scratch_, kPage, 0) != static_cast<ssize_t>(kPage))
            return fail("direct read", page, 0);
        check_words("direct", page, reinterpret_cast<uint64_t*>(scratch_));
    }

    size_t pages_;
    std::mt19937_64 chance_;
    std::atomic<bool>* bad_;
    char* text_;
    size_t text_bytes_;
    std::vector<uint64_t> generation_;
    char *at_, *scratch_;
    int direct_, own_memory_, pipe_[2];
};

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
            while (!shared_->bad) {
                region.step();
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
