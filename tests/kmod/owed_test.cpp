// SPDX-License-Identifier: Apache-2.0
// Owed pages: marked under a load that checks itself, resolved when touched, unmarked at every failure; and,
// with this machine playing the clone (the module's parameter "rehearse"), missing until they are installed.
#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "tests/kmod/checked_load.hpp"
#include "tests/kmod/device.hpp"
#include "tests/kmod/load.hpp"
#include "tests/kmod/passes.hpp"

namespace {

void parameter(const char* name, const char* value) {
    REQUIRE(write_file((std::string("/sys/module/selfmigrate/parameters/") + name).c_str(), value));
}

smig_owe owe(const Device& device) {
    smig_owe argument{};
    argument.size = sizeof argument;
    REQUIRE(device.call(SMIG_IOC_OWE, argument) == 0);
    return argument;
}

// How many pages in swap khugepaged may wait for at a time, with the mmap lock held.
int khugepaged_waits() {
    int pages = -1;
    std::ifstream("/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_swap") >> pages;
    return pages;
}

// Begun, and all but anonymous memory read in two passes.
void begin_hybrid(const Device& device) {
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    for (int i = 0; i < 2; i++) {
        Pass pass;
        REQUIRE(pass.take(device, SMIG_PASS_NO_ANON) == 0);
    }
    smig_prepare again{};
    again.size = sizeof again;
    again.extra_shadow_pages = 2048;
    REQUIRE(device.call(SMIG_IOC_PREPARE, again) == 0);
}

// Entries of a process' page tables that stand for a page that is not mapped: swapped out or under migration.
size_t entries_away(const std::string& pid) {
    size_t away = 0;
    std::ifstream maps("/proc/" + pid + "/maps");
    const int pagemap = open(("/proc/" + pid + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2 || end > 1UL << 47) continue;
        std::vector<uint64_t> entries((end - begin) / 4096);
        const ssize_t bytes =
            pread(pagemap, entries.data(), entries.size() * 8, static_cast<off_t>(begin / 512));
        for (ssize_t i = 0; i < bytes / 8; i++) away += (entries[static_cast<size_t>(i)] >> 62 & 3) == 1;
    }
    close(pagemap);
    return away;
}

std::vector<smig_owed_page> list(const Device& device, uint32_t step = 500) {
    std::vector<smig_owed_page> pages;
    for (;;) {
        std::vector<smig_owed_page> some(step);
        smig_owed_list argument{};
        argument.size = sizeof argument;
        argument.start = pages.size();
        argument.entries = reinterpret_cast<uint64_t>(some.data());
        argument.nr = step;
        REQUIRE(device.call(SMIG_IOC_OWED_LIST, argument) == 0);
        pages.insert(pages.end(), some.begin(), some.begin() + argument.nr_out);
        if (argument.nr_out < step) return pages;
    }
}

smig_owed_status owed_status(const Device& device, uint32_t flags = 0) {
    smig_owed_status argument{};
    argument.size = sizeof argument;
    argument.flags = flags;
    REQUIRE(device.call(SMIG_IOC_OWED_STATUS, argument) == 0);
    return argument;
}

// What the source keeps: contents of owed pages, in memory that is there before the stop.
class Stash {
public:
    explicit Stash(size_t pages) : room_(pages * 512, 1) {}

    // False: they do not fit.
    bool take(const Device& device, const std::vector<smig_owed_page>& pages) {
        if (pages.size() * 512 > room_.size()) return false;
        std::vector<uint64_t> pfns(256);
        std::vector<uint8_t> status(256);
        for (size_t done = 0; done < pages.size();) {
            const auto nr = static_cast<uint32_t>(std::min<size_t>(256, pages.size() - done));
            for (uint32_t i = 0; i < nr; i++) pfns[i] = pages[done + i].pfn;
            smig_read read = reading({pfns.data(), nr}, status, &room_[done * 512]);
            REQUIRE(device.call(SMIG_IOC_READ, read) == 0);
            // contents of zero pages were left out: make room for them, from the end
            size_t data = read.nr_data;
            for (size_t i = nr; i-- > 0;) {
                uint64_t* to = &room_[(done + i) * 512];
                if (status[i] == SMIG_PAGE_ZERO) {
                    std::memset(to, 0, 4096);
                } else {
                    REQUIRE(status[i] == SMIG_PAGE_DATA);
                    std::memmove(to, &room_[(done + --data) * 512], 4096);
                }
            }
            for (uint32_t i = 0; i < nr; i++) index_[pfns[i]] = done + i;
            done += nr;
        }
        return true;
    }
    const uint64_t* find(uint64_t pfn) const {
        const auto at = index_.find(pfn);
        return at == index_.end() ? nullptr : &room_[at->second * 512];
    }
    size_t index(uint64_t pfn) const { return index_.at(pfn); }

private:
    std::vector<uint64_t> room_;
    std::map<uint64_t, size_t> index_;
};

// The clone's agent.
class Server {
public:
    Server(const Device& device, const Stash& stash, std::vector<smig_owed_page> pages)
        : left(pages.size()), device_(device), stash_(stash), pages_(std::move(pages)) {}

    // 0 or the errno.
    int install(const std::vector<uint64_t>& pfns, uint32_t origin) {
        std::vector<uint64_t> data;
        for (uint64_t pfn : pfns) {
            const uint64_t* page = stash_.find(pfn);
            REQUIRE(page);
            data.insert(data.end(), page, page + 512);
        }
        smig_install argument{};
        argument.size = sizeof argument;
        argument.flags = origin;
        argument.pfns = reinterpret_cast<uint64_t>(pfns.data());
        argument.data = reinterpret_cast<uint64_t>(data.data());
        argument.nr = static_cast<uint32_t>(pfns.size());
        const int failed = device_.call(SMIG_IOC_INSTALL, argument);
        if (failed) return failed;
        left = argument.left;
        CHECK(argument.awaited <= argument.installed);
        awaited += argument.awaited;
        return 0;
    }

    // What was asked for, and what stands next to it; then @push more pages.
    void turn(size_t push, unsigned wait_us, bool speculate = true) {
        smig_fault faults[16];
        pollfd wait{device_.file(), POLLIN, 0};
        if (poll(&wait, 1, 1) > 0) {
            const ssize_t bytes = read(device_.file(), faults, sizeof faults);
            REQUIRE(bytes > 0);
            REQUIRE(bytes % static_cast<ssize_t>(sizeof faults[0]) == 0);
            usleep(wait_us);
            std::vector<uint64_t> wanted, near;
            for (size_t i = 0; i < static_cast<size_t>(bytes) / sizeof faults[0]; i++) {
                CHECK(faults[i].mono_ns > 0);
                announced[faults[i].pfn]++;
                wanted.push_back(faults[i].pfn);
                const size_t at = stash_.index(faults[i].pfn);
                for (size_t next = at + 1; speculate && next < std::min(at + 5, pages_.size()); next++)
                    near.push_back(pages_[next].pfn);
            }
            REQUIRE(install(wanted, SMIG_INSTALL_DEMAND) == 0);
            if (left && !near.empty()) REQUIRE(install(near, SMIG_INSTALL_SPECULATED) == 0);
        }
        std::vector<uint64_t> more;
        for (; more.size() < push && pushed_ < pages_.size(); pushed_++) more.push_back(pages_[pushed_].pfn);
        if (left && !more.empty()) REQUIRE(install(more, SMIG_INSTALL_PUSHED) == 0);
    }

    uint64_t left;
    uint64_t awaited = 0;
    std::map<uint64_t, int> announced;

private:
    const Device& device_;
    const Stash& stash_;
    std::vector<smig_owed_page> pages_;
    size_t pushed_ = 0;
};

// Owed, captured, kept aside, and going on as a clone; false where memory did not suffice.
struct Rehearsal {
    Stash stash{14000};
    std::vector<smig_owed_page> pages;
    Judged judged;

    bool begin(const Device& device) {
        begin_hybrid(device);
        owe(device);
        pages.reserve(14000);
        const int failed = judged.take(device, SMIG_CAPTURE_OWE);
        if (failed == EAGAIN || failed == ENOSPC) return false;
        REQUIRE(failed == 0);
        pages = list(device);
        REQUIRE(pages.size() == judged.answer.owed_pages);
        REQUIRE(pages.size() > 0);
        REQUIRE(stash.take(device, pages));
        parameter("rehearse", "Y");
        const int thawed = device.plain(SMIG_IOC_THAW);
        parameter("rehearse", "N");
        REQUIRE(thawed == 0);
        REQUIRE(device.state() == SMIG_STATE_OWING);
        return true;
    }
};

void print(const char* what, const smig_owed_status& s) {
    std::printf(
        "  %s: owed %llu, left %llu; %llu faults waited for %llu pages, mean %llu us, longest %llu us; per "
        "page "
        "announce %llu, fetch %llu, install %llu us, wake %llu us a fault; speculated %llu (used %llu), "
        "pushed %llu "
        "(used %llu), freed %llu\n",
        what, s.owed_pages, s.left_pages, s.demand_faults, s.demand_pages,
        s.wait_ns / 1000 / std::max<uint64_t>(s.demand_faults, 1), s.max_wait_ns / 1000,
        s.announce_ns / 1000 / std::max<uint64_t>(s.demand_pages, 1),
        s.fetch_ns / 1000 / std::max<uint64_t>(s.demand_pages, 1),
        s.install_ns / 1000 / std::max<uint64_t>(s.demand_pages, 1),
        s.wake_ns / 1000 / std::max<uint64_t>(s.demand_faults, 1), s.speculated_pages, s.speculated_used,
        s.pushed_pages, s.pushed_used, s.freed_pages);
    uint64_t sum = 0;
    for (uint64_t slot : s.wait_by_log2_us) sum += slot;
    CHECK(sum == s.demand_faults);
    CHECK(s.speculated_used <= s.speculated_pages);
    CHECK(s.pushed_used <= s.pushed_pages);
}

void fetch_all(bool with_other_load) {
    std::unique_ptr<Load> load;
    if (with_other_load) load = std::make_unique<Load>();
    CheckedLoad checked;
    Device device;
    Rehearsal rehearsal;
    if (!rehearsal.begin(device)) return;
    Server server(device, rehearsal.stash, rehearsal.pages);
    const uint64_t before = checked.steps();
    // no push at first: what goes on does so by demand alone
    const auto serve = [&] {
        if (server.left) server.turn(0, 300);
    };
    for (int i = 0; i < 100; i++) serve();
    CHECK(checked.runs(serve));
    print("by demand", owed_status(device));
    for (int i = 0; i < 100000 && server.left; i++) server.turn(32, 100);
    CHECK(server.left == 0);
    CHECK(device.state() == SMIG_STATE_SOURCE);
    CHECK(checked.runs());
    CHECK(checked.steps() > before);
    CHECK(checked.wrong() == "");
    for (const auto& [pfn, times] : server.announced)
        if (times != 1) FAIL_CHECK("page announced " << times << " times");
    const smig_owed_status status = owed_status(device);
    print("at the end", status);
    CHECK(status.left_pages == 0);
    CHECK(status.owed_pages == rehearsal.pages.size());
    CHECK(status.demand_pages >= server.announced.size());
    CHECK(server.awaited <= status.demand_pages);
    CHECK(server.awaited >= server.announced.size());
    smig_fault none;
    CHECK(read(device.file(), &none, sizeof none) == 0);
}

}  // namespace

TEST_CASE("marking needs tracking, and what is wrong with the calls is refused") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    smig_owe argument{};
    argument.size = sizeof argument;
    CHECK(device.call(SMIG_IOC_OWE, argument) == EBADFD);
    Judged judged;
    CHECK(judged.take(device, SMIG_CAPTURE_OWE) == EINVAL);
    REQUIRE(track(device) == 0);
    argument.flags = 1;
    CHECK(device.call(SMIG_IOC_OWE, argument) == EINVAL);
    Pass pass;
    CHECK(pass.take(device, 8) == EINVAL);
    smig_fault fault;
    CHECK(read(device.file(), &fault, sizeof fault) == -1);
    CHECK(errno == EBADFD);
    CHECK(owed_status(device).owed_pages == 0);
}

TEST_CASE("a pass without anonymous memory leaves it out, and the next one with it has it") {
    Ticker ticker;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    REQUIRE(prepare(device) == 0);
    REQUIRE(track(device) == 0);
    Pass without, with;
    REQUIRE(without.take(device, SMIG_PASS_NO_ANON) == 0);
    REQUIRE(with.take(device) == 0);
    CHECK(with.answer.pages > 100);
    CHECK(without.answer.pages > with.answer.pages);
}

TEST_CASE("under load, marked pages resolve when they are touched, and all come back") {
    Load load;
    CheckedLoad checked;
    Ticker ticker;
    const uint64_t before = free_pages();
    for (int round = 0; round < 2; round++) {
        Device device;
        begin_hybrid(device);
        for (int i = 0; i < 3; i++) {
            const smig_owe first = owe(device);
            CHECK(first.owed_pages > 500);
            std::printf("  owed %llu, skipped %llu, %llu us: %llu ns a page\n", first.owed_pages,
                        first.skipped_pages, first.mark_us,
                        first.mark_us * 1000 / std::max<uint64_t>(first.owed_pages, 1));
            CHECK(checked.runs());
            usleep(140000);
        }
        Pass pass;
        CHECK(pass.take(device, round ? SMIG_PASS_NO_ANON : 0) == 0);
        CHECK(checked.runs());
        if (round) CHECK(track(device, SMIG_TRACK_OFF) == 0);
        CHECK(checked.runs());
        CHECK(ticker.runs());
    }
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
    CHECK(free_pages() + 30000 > before);
}

TEST_CASE("without owing to divert, the passive hooks resolve what is touched") {
    CheckedLoad checked;
    parameter("divert", "N");
    {
        Device device;
        begin_hybrid(device);
        for (int i = 0; i < 3; i++) {
            owe(device);
            CHECK(checked.runs());
        }
    }
    parameter("divert", "Y");
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
}

TEST_CASE("a failure at any step of the stop unmarks everything, under load") {
    CheckedLoad checked;
    Device device;
    begin_hybrid(device);
    for (uint32_t step = SMIG_STEP_NOTIFY; step <= SMIG_STEP_COPY; step++) {
        CAPTURE(step);
        owe(device);
        REQUIRE(prepare(device) == 0);
        Judged failing;
        fail_at(step);
        CHECK(failing.take(device, SMIG_CAPTURE_OWE) == EIO);
        CHECK(failing.answer.failed_step == step + 1);
        CHECK(device.state() == SMIG_STATE_SOURCE);
        CHECK(checked.runs());
        CHECK(checked.wrong() == "");
    }
    REQUIRE(prepare(device) == 0);
    Judged judged;
    CHECK(judged.take(device, SMIG_CAPTURE_OWE) == 0);
    CHECK(judged.answer.owed_pages > 500);
    CHECK(device.plain(SMIG_IOC_THAW) == 0);
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
}

namespace {

// A child that writes to all pages of its memory again and again, and nothing else in the guest maps that
// address.
class WorkingSet {
public:
    WorkingSet(uint64_t address, size_t pages) : begin_(address), end_(address + pages * 4096) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        child_ = fork();
        if (child_ != 0) {
            close(ends[1]);
            char filled = 0;
            REQUIRE(read(ends[0], &filled, 1) == 1);
            close(ends[0]);
            return;
        }
        auto* memory = static_cast<volatile char*>(
            mmap(reinterpret_cast<void*>(address), pages * 4096, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
        madvise(const_cast<char*>(memory), pages * 4096, MADV_NOHUGEPAGE);
        for (char value = 1;; value++) {
            for (size_t page = 0; page < pages; page++) memory[page * 4096] = value;
            if (ends[1] >= 0 && (write(ends[1], "f", 1) != 1 || close(std::exchange(ends[1], -1)) != 0))
                _exit(1);
            usleep(2000);
        }
    }
    ~WorkingSet() {
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
    }
    WorkingSet(const WorkingSet&) = delete;
    WorkingSet& operator=(const WorkingSet&) = delete;

    size_t owed(const std::vector<smig_owed_page>& pages) const {
        return static_cast<size_t>(std::ranges::count_if(pages, [&](const smig_owed_page& page) {
            return page.address >= begin_ && page.address < end_;
        }));
    }

private:
    uint64_t begin_, end_;
    pid_t child_;
};

// Of what READ gives of these frames.
uint64_t hash_of_all(const Device& device, const std::vector<uint64_t>& frames) {
    std::vector<uint64_t> pfns, data(256 * 512);
    std::vector<uint8_t> status(256);
    uint64_t hash = 0;
    const auto hash_batch = [&] {
        smig_read read = reading(pfns, status, data.data());
        REQUIRE(device.call(SMIG_IOC_READ, read) == 0);
        for (size_t i = 0; i < pfns.size(); i++) hash = hash * 31 + status[i];
        for (size_t i = 0; i < size_t{read.nr_data} * 512; i++) hash = (hash ^ data[i]) * 0x9e3779b97f4a7c15;
        pfns.clear();
    };
    for (size_t pfn = 0; pfn < frames.size() * 64; pfn++) {
        if (frames[pfn / 64] >> (pfn % 64) & 1) pfns.push_back(pfn);
        if (pfns.size() == 256) hash_batch();
    }
    if (!pfns.empty()) hash_batch();
    return hash;
}

}  // namespace

TEST_CASE(
    "what a process with a small working set touches just before the stop goes in it; a large one is owed") {
    constexpr size_t kSmall = 60, kLarge = 3000;
    constexpr uint64_t kHot = 1000;
    Ticker ticker;
    const WorkingSet small(0x100000000000, kSmall), large(0x200000000000, kLarge);
    for (const uint64_t hot : {uint64_t{0}, kHot}) {
        CAPTURE(hot);
        Device device;
        begin_hybrid(device);
        owe(device);
        usleep(400000);
        Judged judged;
        REQUIRE(judged.take(device, SMIG_CAPTURE_OWE, hot) == 0);
        const std::vector<smig_owed_page> pages = list(device);
        CHECK(pages.size() == judged.answer.owed_pages);
        CHECK(small.owed(pages) >= (hot == 0 ? kSmall - 2 : 0));
        CHECK(small.owed(pages) <= (hot == 0 ? kSmall : 0));
        CHECK(large.owed(pages) >= kLarge - 10);
        CHECK(judged.answer.hot_pages >= (hot == 0 ? 0 : kSmall));
        CHECK(judged.answer.hot_pages <= hot);
        REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
        CHECK(ticker.runs());
    }
}

TEST_CASE("with the list what was held for the stop is free, and to fill it harms nothing") {
    CheckedLoad checked;
    Ticker ticker;
    Device device;
    begin_hybrid(device);
    const uint64_t at_work = free_pages();
    Judged judged;
    REQUIRE(judged.take(device, SMIG_CAPTURE_OWE) == 0);
    const uint64_t rest = judged.answer.shadow_pages - judged.answer.shadow_used;
    REQUIRE(rest > 8192);
    const uint64_t captured = free_pages();
    const uint64_t sent = hash_of_all(device, judged.send);
    const std::vector<smig_owed_page> pages = list(device);
    const uint64_t listed = free_pages();
    std::printf("  shadow %llu of %llu; free %llu before the stop, %llu in it, %llu with the list\n",
                judged.answer.shadow_used, judged.answer.shadow_pages,
                static_cast<unsigned long long>(at_work), static_cast<unsigned long long>(captured),
                static_cast<unsigned long long>(listed));
    CHECK(captured > at_work + kStopReserve + 1024);
    CHECK(listed > captured + rest / 2);
    const std::vector<uint64_t> filled((listed - captured) / 2 * 512, ~uint64_t{0});
    Stash stash(pages.size());
    CHECK(stash.take(device, pages));
    CHECK(hash_of_all(device, judged.send) == sent);
    CHECK(device.plain(SMIG_IOC_VERIFY) == 0);
    CHECK(ticker.stands_still());
    REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
    CHECK(ticker.runs());
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
}

TEST_CASE("what is owed at the capture is listed, readable, not in the image; nothing else is missed") {
    Load load;
    CheckedLoad checked;
    Ticker ticker;
    int judged_captures = 0, known_pages = 0;
    for (int i = 0; i < 3; i++) {
        CAPTURE(i);
        Device device;
        begin_hybrid(device);
        const uint64_t marked = i ? owe(device).owed_pages : 0;
        Judged judged;
        Stash stash(14000);
        const int failed = judged.take(device, SMIG_CAPTURE_VERIFY | SMIG_CAPTURE_OWE);
        if (failed == EAGAIN || failed == ENOSPC) continue;
        REQUIRE(failed == 0);
        judged_captures++;
        const smig_capture& answer = judged.answer;
        std::printf(
            "  marked %llu before, owed %llu at the capture, marking in the stop %llu us; sent: anon %llu, "
            "kernel %llu; missed %llu\n",
            static_cast<unsigned long long>(marked), answer.owed_pages, answer.owe_us,
            answer.send_by_class[SMIG_CLASS_ANON], answer.send_by_class[SMIG_CLASS_KERNEL],
            answer.missed_pages);
        CHECK(answer.missed_pages == 0);
        CHECK(answer.owed_pages > 500);
        const auto pages = list(device, i == 1 ? 7 : 500);
        CHECK(pages.size() == answer.owed_pages);
        std::set<uint64_t> distinct;
        size_t nowhere = 0;
        for (size_t k = 0; k < pages.size(); k++) {
            distinct.insert(pages[k].pfn);
            CHECK_FALSE(judged.has(pages[k].pfn));
            nowhere += pages[k].space == 0;
            if (!k || !pages[k].space || pages[k].space != pages[k - 1].space) continue;
            CHECK(pages[k].address > pages[k - 1].address);
            CHECK(pages[k].area >= pages[k - 1].area);
        }
        CHECK(distinct.size() == pages.size());
        CHECK(nowhere < pages.size() / 20);
        REQUIRE(stash.take(device, pages));
        // other processes may have a page of their own at the known page's address
        const auto is_known = [&](const smig_owed_page& page) {
            const uint64_t* words = stash.find(page.pfn);
            return page.address == ticker.address() && words[0] == Ticker::kPattern &&
                   words[511] == Ticker::kPattern + 511;
        };
        known_pages += std::any_of(pages.begin(), pages.end(), is_known);
        CHECK(ticker.stands_still());
        CHECK(device.plain(SMIG_IOC_THAW) == 0);
        CHECK(checked.runs());
        CHECK(checked.wrong() == "");
    }
    CHECK(judged_captures > 0);
    CHECK(known_pages > 0);
}

TEST_CASE("pages of the caller and of process 1 are not owed, and closing the file unmarks everything") {
    CheckedLoad checked;
    {
        Device device;
        begin_hybrid(device);
        const smig_owe marked = owe(device);
        Judged judged;
        REQUIRE(judged.take(device, SMIG_CAPTURE_OWE) == 0);
        CHECK(judged.answer.owed_pages > 500);
        std::printf(
            "  quiet: %llu marked in %llu us: %llu ns a page; %llu owed, marking in the stop %llu us\n",
            marked.owed_pages, marked.mark_us, marked.mark_us * 1000 / marked.owed_pages,
            judged.answer.owed_pages, judged.answer.owe_us);
        list(device);
        CHECK(entries_away("self") == 0);
        CHECK(entries_away("1") == 0);
        CHECK(entries_away(checked.pid()) > 100);
    }
    CHECK(Device().state() == SMIG_STATE_IDLE);
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
}

TEST_CASE("missing pages: whoever touches one waits until it is installed, and finds it whole") {
    fetch_all(false);
}

TEST_CASE("missing pages under every other load") {
    fetch_all(true);
}

TEST_CASE("missing pages, learned of by passive hooks alone") {
    parameter("divert", "N");
    fetch_all(false);
    parameter("divert", "Y");
}

// ROUNDS in the environment: so many times.
TEST_CASE("missing pages are whole whichever way they are reached") {
    CheckedLoad checked(3, 4000);
    const char* given = std::getenv("ROUNDS");
    const int rounds = given ? std::atoi(given) : 1;
    int begun = 0;
    for (int round = 0; round < rounds && checked.wrong().empty(); round++) {
        Device device;
        Rehearsal rehearsal;
        if (!rehearsal.begin(device)) continue;
        Server server(device, rehearsal.stash, rehearsal.pages);
        begun++;
        checked.count(true);
        // by demand alone, as long as much is missing
        for (int i = 0; i < 20000 && server.left > rehearsal.pages.size() / 4; i++) server.turn(0, 0, false);
        checked.count(false);
        print("by demand", owed_status(device));
        for (int i = 0; i < 100000 && server.left; i++) server.turn(64, 0);
        CHECK(server.left == 0);
        CHECK(checked.runs());
    }
    CHECK(begun * 2 > rounds);
    CHECK(checked.wrong() == "");
    for (const auto& [way, pages] : checked.reached()) {
        std::printf("  %s: %llu missing pages\n", way, static_cast<unsigned long long>(pages));
        CHECK_MESSAGE(pages > 0, way);
    }
}

TEST_CASE("pages of a process that ends while they are missing are released") {
    CheckedLoad checked;
    Device device;
    Rehearsal rehearsal;
    if (!rehearsal.begin(device)) return;
    Server server(device, rehearsal.stash, rehearsal.pages);
    const auto serve = [&] {
        if (server.left) server.turn(0, 100);
    };
    for (int i = 0; i < 50; i++) serve();
    // without being served for a while, some of its threads wait for a page
    usleep(100000);
    CHECK(checked.kill_one(serve));
    const uint64_t before = free_pages();
    for (int i = 0; i < 100000 && server.left; i++) server.turn(64, 0);
    CHECK(server.left == 0);
    const smig_owed_status status = owed_status(device);
    print("after an end", status);
    CHECK(status.freed_pages > 300);
    CHECK(free_pages() + 2000 > before);
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
}

TEST_CASE("in OWING the state outlives its file, another adopts it, and no other move begins") {
    CheckedLoad checked;
    auto first = std::make_unique<Device>();
    Rehearsal rehearsal;
    const int usual = khugepaged_waits();
    REQUIRE(usual > 0);
    if (!rehearsal.begin(*first)) return;
    CHECK(khugepaged_waits() == 0);
    Device second;
    CHECK(second.begin(SMIG_ROLE_TARGET) == EBUSY);
    CHECK_FALSE(write_file("/sys/power/state", "freeze"));
    CHECK(errno == EBUSY);
    // what is announced and then lost with its reader is announced anew
    usleep(140000);
    smig_fault lost[16];
    REQUIRE(read(first->file(), lost, sizeof lost) > 0);
    first->release();
    CHECK(second.state() == SMIG_STATE_OWING);
    CHECK(second.begin(SMIG_ROLE_SOURCE) == EBADFD);
    REQUIRE(second.begin(SMIG_ROLE_TARGET) == 0);
    CHECK(owed_status(second, SMIG_OWED_REPEAT).left_pages == rehearsal.pages.size());
    Server server(second, rehearsal.stash, rehearsal.pages);
    const auto serve = [&] {
        if (server.left) server.turn(0, 0);
    };
    for (int i = 0; i < 100; i++) serve();
    CHECK(server.announced.count(lost[0].pfn) == 1);
    CHECK(checked.runs(serve));

    std::vector<uint64_t> one{rehearsal.pages[0].pfn};
    CHECK(server.install(one, 4 | 3) == EINVAL);
    one[0] = second.info().top_pfn;
    CHECK(server.left > 0);
    smig_install bad{};
    bad.size = sizeof bad;
    bad.pfns = reinterpret_cast<uint64_t>(one.data());
    bad.nr = 1;
    CHECK(second.call(SMIG_IOC_INSTALL, bad) == EINVAL);
    bad.nr = 0;
    CHECK(second.call(SMIG_IOC_INSTALL, bad) == EINVAL);
    bad.nr = 1;
    one[0] = rehearsal.pages[0].pfn;
    bad.reserved = 1;
    CHECK(second.call(SMIG_IOC_INSTALL, bad) == EINVAL);
    for (int i = 0; i < 100000 && server.left; i++) server.turn(64, 0);
    CHECK(second.state() == SMIG_STATE_SOURCE);
    CHECK(khugepaged_waits() == usual);
    CHECK(checked.runs());
    CHECK(checked.wrong() == "");
    second.release();
    CHECK(Device().state() == SMIG_STATE_IDLE);
    CHECK(checked.runs());
}
