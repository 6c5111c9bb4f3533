// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/fake_machine.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <new>
#include <random>
#include <vector>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"

namespace smig {

namespace {

// Gone, or a zombie that its parent has not looked at.
bool process_dead(int pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (!std::getline(stat, line)) return true;
    const std::size_t end = line.rfind(')');
    return end == std::string::npos || end + 2 >= line.size() || line[end + 2] == 'Z' || line[end + 2] == 'X';
}

template <class Type>
Type* pointer(std::uint64_t address) {
    return std::bit_cast<Type*>(address);
}

Error wrong_state(const char* name) {
    return {Remedy::fatal, std::string("module: ") + name + ": not in this state of the move"};
}

void announce_fake_fault(FakeMachine& machine, std::uint64_t pfn) {
    smig_fault fault{};
    fault.pfn = pfn;
    fault.mono_ns = mono_ns();
    SMIG_CHECK(::write(machine.fault_pipe[1], &fault, sizeof(fault)) == sizeof(fault));
}

// One process of the guest: walks, jumps, waits for what is missing, lets go of some of it.
void be_fake_guest(FakeMachine& machine) {
    std::mt19937_64 random(static_cast<std::uint64_t>(::getpid()));
    std::uint64_t pfn = 0;
    while (machine.missing_pages > 0) {
        pfn = random() % 8 == 0 ? random() % kFakeTop : (pfn + 1) % kFakeTop;
        if (machine.missing[pfn] && random() % 50 == 0) {
            if (machine.missing[pfn].exchange(false)) {
                machine.freed[pfn] = true;
                --machine.missing_pages;
            }
        } else if (machine.missing[pfn]) {
            machine.waited[pfn] = true;
            ++machine.waits;
            announce_fake_fault(machine, pfn);
            while (machine.missing[pfn]) ::usleep(50);
            ++machine.waits_over;
        }
        if (machine.guest_pace_us > 0) ::usleep(static_cast<useconds_t>(machine.guest_pace_us));
    }
}

void start_fake_guest(FakeMachine& machine) {
    const pid_t child = ::fork();
    SMIG_CHECK(child >= 0);
    if (child != 0) return;
    // Its parent's connections are not its own.
    for (int fd = 3; fd < 256; ++fd)
        if (fd != machine.fault_pipe[1]) ::close(fd);
    be_fake_guest(machine);
    ::_exit(0);
}

class FakeDevice final : public Device {
public:
    FakeDevice(FakeMachine& machine, FakeJump jump) : machine_(machine), jump_(std::move(jump)) {}
    ~FakeDevice() override {
        if (owns()) close_owner();
    }

    Result<void> info(smig_info& out) override {
        out = {};
        out.abi_version = SMIG_ABI_VERSION;
        out.vcpus = 1;
        out.page_table_levels = 4;
        out.top_pfn = kFakeTop;
        out.ram_pages = kFakeTop;
        std::strcpy(out.release, "6.1.0-fake");
        return {};
    }
    Result<void> status(smig_status& out) override {
        out = {};
        bury();
        out.state = machine_.state;
        out.owner_pid = static_cast<std::uint32_t>(machine_.owner.load());
        return {};
    }
    Result<void> begin(std::uint32_t role) override {
        bury();
        int nobody = 0;
        if (!machine_.owner.compare_exchange_strong(nobody, ::getpid()) && nobody != ::getpid())
            return Error{Remedy::refused, "module: BEGIN: another process is moving this guest"};
        const std::uint32_t state = machine_.state;
        if (role == SMIG_ROLE_SOURCE && state == SMIG_STATE_GIVEN) return {};
        if (role == SMIG_ROLE_TARGET && (state == SMIG_STATE_CLONE || state == SMIG_STATE_OWING)) return {};
        if (state != SMIG_STATE_IDLE) return wrong_state("BEGIN");
        machine_.state = role == SMIG_ROLE_SOURCE ? SMIG_STATE_SOURCE : SMIG_STATE_TARGET;
        return {};
    }
    Result<void> set_flows(smig_flows& flows) override {
        machine_.flows_set = static_cast<int>(flows.nr_flows);
        return {};
    }
    Result<void> exempt() override { return {}; }

    Result<void> prepare(smig_prepare& prepare, std::uint32_t flags) override {
        if (!in(SMIG_STATE_SOURCE)) return wrong_state("PREPARE");
        machine_.spares_only = flags == SMIG_PREPARE_SPARE;
        prepare.shadow_pages = 100;
        // The free frames at the end of memory are held.
        std::uint64_t held = 0;
        for (std::uint64_t pfn = kFakeTop; pfn-- > 0 && held < prepare.spare_pages;) {
            if (machine_.in_image[pfn]) continue;
            machine_.vacant[pfn] = true;
            ++held;
        }
        if (held < prepare.spare_pages) return Error{Remedy::refused, "module: PREPARE: not enough memory"};
        if (prepare.vacant_bitmap != 0) fill(prepare.vacant_bitmap, machine_.vacant);
        return {};
    }
    Result<void> track(smig_track&, std::uint32_t) override {
        if (!in(SMIG_STATE_SOURCE)) return wrong_state("TRACK");
        // The guest needs the rest while it runs.
        SMIG_CHECK(machine_.spares_only);
        machine_.tracking = true;
        for (auto& page : machine_.to_read) page = true;
        return {};
    }
    Result<void> pass(smig_pass& pass, std::uint32_t flags) override {
        if (!in(SMIG_STATE_SOURCE) || !machine_.tracking) return wrong_state("PASS");
        stir_guest();
        pass.number = ++machine_.passes;
        auto* words = pointer<std::uint64_t>(pass.bitmap);
        std::fill_n(words, pass.bitmap_bytes / 8, 0);
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            if (machine_.in_image[pfn]) ++pass.in_use_pages;
            // A dirty bit suspects more than was changed.
            if (!machine_.in_image[pfn] || (!machine_.to_read[pfn] && pfn % 53 != 0)) continue;
            if ((flags & SMIG_PASS_NO_ANON) != 0 && fake_anonymous(pfn)) continue;
            words[pfn / 64] |= 1ull << (pfn % 64);
            ++pass.pages;
            if (pass.number > 1) ++pass.changed_pages;
        }
        return {};
    }
    Result<void> owe(smig_owe& owe) override {
        if (!in(SMIG_STATE_SOURCE) || !machine_.tracking) return wrong_state("OWE");
        std::uint64_t skipped = 0;
        stir_guest();
        owe.owed_pages = mark_owed(skipped);
        owe.skipped_pages = skipped;
        return {};
    }
    Result<void> capture(smig_capture& capture, std::uint32_t flags) override {
        if (!in(SMIG_STATE_SOURCE)) return wrong_state("CAPTURE");
        SMIG_CHECK((flags & ~(SMIG_CAPTURE_VERIFY | SMIG_CAPTURE_OWE)) == 0 && capture.send_bitmap != 0);
        // The stop needs more than the spares.
        SMIG_CHECK(!machine_.spares_only);
        machine_.spares_only = true;
        if (machine_.tracking) stir_guest();
        std::uint64_t skipped = 0;
        if ((flags & SMIG_CAPTURE_OWE) != 0) (void)mark_owed(skipped);
        capture.owed_pages = owed_pages();
        machine_.owed_at_capture = capture.owed_pages;
        machine_.guest_runs = false;
        machine_.ever_frozen = true;
        if (machine_.fail_step != 0) {
            machine_.guest_runs = true;
            capture.failed_step = machine_.fail_step;
            return Error{Remedy::fatal, std::string("module: CAPTURE: failed (in step ") +
                                            failed_step_name(capture.failed_step) + ")"};
        }
        machine_.state = SMIG_STATE_CAPTURED;
        capture.role = SMIG_ROLE_SOURCE;
        const auto in_image = [&](std::uint64_t pfn) {
            return machine_.in_image[pfn] && !machine_.owed[pfn];
        };
        capture.header.image_pages = fill_if(capture.image_bitmap, in_image);
        if (!machine_.tracking)
            for (auto& page : machine_.to_read) page = true;
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn)
            if (!in_image(pfn)) machine_.to_read[pfn] = false;
        capture.send_pages = fill(capture.send_bitmap, machine_.to_read);
        capture.send_by_class[SMIG_CLASS_ANON] = capture.send_pages;
        capture.pages[SMIG_CLASS_ANON] = capture.header.image_pages;
        capture.header.magic = 42;
        capture.header.top_pfn = kFakeTop;
        capture.header.vcpus = 1;
        capture.captured_mono_ns = mono_ns();
        return {};
    }
    Result<void> read(smig_read& read) override {
        const bool live = in(SMIG_STATE_SOURCE) && machine_.tracking;
        if (!live && !in(SMIG_STATE_CAPTURED) && !in(SMIG_STATE_GIVEN)) return wrong_state("READ");
        const auto* pfns = pointer<const std::uint64_t>(read.pfns);
        auto* status = pointer<std::uint8_t>(read.status);
        auto* data = read.data != 0 ? pointer<std::byte>(read.data) : buffer_.data();
        SMIG_CHECK(read.data != 0 || read.nr <= SMIG_BUFFER_PAGES);
        read.nr_data = 0;
        for (std::uint32_t i = 0; i < read.nr; ++i) {
            const auto& page = machine_.pages[pfns[i]];
            if (live && !machine_.in_image[pfns[i]]) {
                status[i] = SMIG_PAGE_FREE;
                continue;
            }
            // Some cannot be read now, some are found to be as they were.
            if (live && pfns[i] % 97 == machine_.passes % 97) {
                status[i] = SMIG_PAGE_LATER;
                continue;
            }
            if (live && !machine_.to_read[pfns[i]]) {
                status[i] = SMIG_PAGE_SAME;
                continue;
            }
            if (live) machine_.to_read[pfns[i]] = false;
            const bool zero = std::ranges::all_of(page, [](std::byte byte) { return byte == std::byte{0}; });
            status[i] = zero ? SMIG_PAGE_ZERO : SMIG_PAGE_DATA;
            if (!zero) std::memcpy(data + kPageBytes * read.nr_data++, page.data(), kPageBytes);
        }
        return {};
    }
    Result<std::span<const std::byte>> map_buffer() override { return std::span<const std::byte>(buffer_); }
    Result<void> verify() override {
        return in(SMIG_STATE_CAPTURED) ? Result<void>{} : wrong_state("VERIFY");
    }
    Result<void> commit() override {
        if (!in(SMIG_STATE_CAPTURED)) return wrong_state("COMMIT");
        machine_.state = SMIG_STATE_GIVEN;
        return {};
    }
    Result<void> thaw() override {
        if (!in(SMIG_STATE_CAPTURED)) return wrong_state("THAW");
        machine_.state = SMIG_STATE_SOURCE;
        machine_.guest_runs = true;
        return {};
    }
    Result<std::size_t> owed_list(std::uint64_t start, std::span<smig_owed_page> pages) override {
        if (!in(SMIG_STATE_CAPTURED) && !in(SMIG_STATE_GIVEN)) return wrong_state("OWED_LIST");
        std::size_t count = 0;
        std::uint64_t number = 0;
        for (std::uint64_t pfn = 0; pfn < kFakeTop && count < pages.size(); ++pfn) {
            if (!machine_.owed[pfn] || number++ < start) continue;
            pages[count] = {};
            pages[count].pfn = pfn;
            // Two spaces, an area for every 256 frames; every third area is of a file.
            pages[count].address = (0x1000 + pfn) * kPageBytes;
            pages[count].space = pfn < kFakeTop / 2 ? 1 : 2;
            pages[count].area = static_cast<std::uint32_t>(1 + pfn / 256);
            if (pages[count].area % 3 == 0) {
                pages[count].file = 9;
                pages[count].file_page = pfn % 256;
            }
            ++count;
        }
        return count;
    }

    Result<void> land(smig_land& land) override {
        if (!in(SMIG_STATE_TARGET)) return wrong_state("LAND");
        land.held_pages = kFakeTop - 500;
        land.footprint_pages = 500;
        land.vacant_pages = 500;
        return {};
    }
    Result<void> vacant(smig_vacant& vacant) override {
        if (!in(SMIG_STATE_TARGET) && !in(SMIG_STATE_LANDED)) return wrong_state("VACANT");
        const auto* words = pointer<const std::uint64_t>(vacant.bitmap);
        std::uint64_t count = 0;
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            machine_.vacant[pfn] = (words[pfn / 64] >> (pfn % 64) & 1) != 0;
            machine_.placed[pfn] = false;
            if (machine_.vacant[pfn]) ++count;
        }
        if (count < 500) return Error{Remedy::retry, "module: VACANT: the spare frames do not suffice"};
        machine_.state = SMIG_STATE_LANDED;
        return {};
    }
    Result<void> image(smig_image& image) override {
        if (!in(SMIG_STATE_LANDED)) return wrong_state("IMAGE");
        const auto* words = pointer<const std::uint64_t>(image.image_bitmap);
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            machine_.in_image[pfn] = (words[pfn / 64] >> (pfn % 64) & 1) != 0;
            SMIG_CHECK(!machine_.in_image[pfn] || !machine_.vacant[pfn]);
        }
        return {};
    }
    Result<void> place(smig_place& place, std::uint32_t flags) override {
        if (!in(SMIG_STATE_LANDED)) return wrong_state("PLACE");
        const auto* pfns = pointer<const std::uint64_t>(place.pfns);
        const auto* data = pointer<const std::byte>(place.data);
        for (std::uint32_t i = 0; i < place.nr; ++i) {
            SMIG_CHECK(pfns[i] < kFakeTop && !machine_.vacant[pfns[i]]);
            machine_.placed[pfns[i]] = true;
            auto& page = machine_.pages[pfns[i]];
            if ((flags & SMIG_PLACE_ZERO) != 0)
                page.fill(std::byte{0});
            else
                std::memcpy(page.data(), data + kPageBytes * i, kPageBytes);
        }
        return {};
    }
    Error jump(smig_jump& jump) override {
        if (!in(SMIG_STATE_LANDED)) return wrong_state("JUMP");
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn)
            if (machine_.in_image[pfn] && !machine_.placed[pfn])
                return {Remedy::fatal, "module: JUMP: the image is incomplete"};
        if (machine_.fail_step != 0)
            return {Remedy::fatal, std::string("module: JUMP: failed (in step ") +
                                       failed_step_name(machine_.fail_step) + ")"};
        machine_.state = SMIG_STATE_CLONE;
        machine_.owner = 0;
        if (machine_.origin != nullptr)
            for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
                machine_.missing[pfn] = machine_.origin->owed[pfn].load();
                if (machine_.missing[pfn]) ++machine_.missing_pages;
            }
        machine_.owed_at_capture = machine_.missing_pages.load();
        const std::string handover(pointer<const char>(jump.handover), jump.handover_len);
        ::_exit(jump_(handover));
    }

    Result<void> release(smig_release& release, std::uint32_t flags) override {
        if (!in(SMIG_STATE_CLONE)) return wrong_state("RELEASE");
        if (flags == SMIG_RELEASE_FENCES_ONLY) {
            release.fence_open_mono_ns = mono_ns();
            return {};
        }
        machine_.released = true;
        machine_.state = machine_.missing_pages > 0 ? SMIG_STATE_OWING : SMIG_STATE_SOURCE;
        if (machine_.state == SMIG_STATE_OWING) start_fake_guest(machine_);
        return {};
    }
    Result<void> install(smig_install& install, std::uint32_t flags) override {
        if (!in(SMIG_STATE_CLONE) && !in(SMIG_STATE_OWING)) return wrong_state("INSTALL");
        const auto* pfns = pointer<const std::uint64_t>(install.pfns);
        const auto* data = pointer<const std::byte>(install.data);
        if (machine_.install_pace_us > 0) ::usleep(static_cast<useconds_t>(machine_.install_pace_us));
        for (std::uint32_t i = 0; i < install.nr; ++i) {
            SMIG_CHECK(pfns[i] < kFakeTop);
            ++machine_.arrivals[pfns[i]];
            // The guest may let go of it at this very moment.
            if (!machine_.missing[pfns[i]]) continue;
            auto& page = machine_.pages[pfns[i]];
            if ((flags & SMIG_INSTALL_ZERO) != 0)
                page.fill(std::byte{0});
            else
                std::memcpy(page.data(), data + kPageBytes * i, kPageBytes);
            machine_.placed[pfns[i]] = true;
            if (!machine_.missing[pfns[i]].exchange(false)) continue;
            --machine_.missing_pages;
            ++machine_.installs[pfns[i]];
            ++machine_.installed_by.at(flags & SMIG_INSTALL_ORIGIN);
            ++install.installed;
            if (machine_.waited[pfns[i]]) ++install.awaited;
        }
        install.left = machine_.missing_pages;
        end_owing();
        return {};
    }
    Result<void> owed_status(smig_owed_status& status, std::uint32_t flags) override {
        status = {};
        if ((flags & SMIG_OWED_REPEAT) != 0)
            for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn)
                if (machine_.waited[pfn] && machine_.missing[pfn]) announce_fake_fault(machine_, pfn);
        status.owed_pages = machine_.owed_at_capture;
        status.left_pages = machine_.tracking ? owed_pages() : machine_.missing_pages.load();
        status.demand_faults = status.demand_pages = machine_.waits_over;
        status.speculated_pages = machine_.installed_by[SMIG_INSTALL_SPECULATED];
        status.pushed_pages = machine_.installed_by[SMIG_INSTALL_PUSHED];
        for (const auto& one : machine_.freed) status.freed_pages += one ? 1 : 0;
        end_owing();
        return {};
    }
    Result<std::size_t> read_faults(std::span<smig_fault> faults) override {
        const ssize_t got = ::read(fault_fd(), faults.data(), faults.size_bytes());
        return got <= 0 ? std::size_t{0} : static_cast<std::size_t>(got) / sizeof(smig_fault);
    }
    [[nodiscard]] int fault_fd() const override { return machine_.fault_pipe[0]; }

private:
    void end_owing() {
        std::uint32_t owing = SMIG_STATE_OWING;
        if (machine_.missing_pages == 0) machine_.state.compare_exchange_strong(owing, SMIG_STATE_SOURCE);
    }
    [[nodiscard]] std::uint64_t owed_pages() const {
        return static_cast<std::uint64_t>(
            std::ranges::count_if(machine_.owed, [](const auto& page) { return page.load(); }));
    }
    // What the target lacks and is anonymous; some are referred to by others, and are left out.
    std::uint64_t mark_owed(std::uint64_t& skipped) {
        std::uint64_t count = 0;
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            const bool lacking = machine_.in_image[pfn] && machine_.to_read[pfn] && fake_anonymous(pfn);
            machine_.owed[pfn] = lacking && pfn % 31 != 0;
            if (machine_.owed[pfn]) ++count;
            if (lacking && !machine_.owed[pfn]) ++skipped;
        }
        return count;
    }
    template <class Predicate>
    static std::uint64_t fill_if(std::uint64_t bitmap, Predicate predicate) {
        auto* words = pointer<std::uint64_t>(bitmap);
        std::fill_n(words, (kFakeTop + 63) / 64, 0);
        std::uint64_t count = 0;
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            if (!predicate(pfn)) continue;
            words[pfn / 64] |= 1ull << (pfn % 64);
            ++count;
        }
        return count;
    }
    [[nodiscard]] bool owns() const { return machine_.owner == ::getpid(); }
    [[nodiscard]] bool in(std::uint32_t state) const { return owns() && machine_.state == state; }
    static std::uint64_t fill(std::uint64_t bitmap, const std::array<std::atomic<bool>, kFakeTop>& frames) {
        return fill_if(bitmap, [&](std::uint64_t pfn) { return frames[pfn].load(); });
    }
    // The guest writes, frees and allocates, and never into frames that are held.
    void stir_guest() {
        for (std::uint64_t i = 0; i < machine_.restless_pages; ++i) {
            const std::uint64_t pfn = random_() % kFakeTop;
            if (machine_.vacant[pfn]) continue;
            auto& page = machine_.pages[pfn];
            const auto what = random_() % 16;
            machine_.in_image[pfn] = what != 0;
            if (what == 1)
                page.fill(std::byte{0});
            else
                page[random_() % kPageBytes] ^= std::byte{0x55};
            machine_.to_read[pfn] = true;
            machine_.owed[pfn] = false;
        }
    }
    void close_owner() {
        if (machine_.state != SMIG_STATE_GIVEN)
            for (auto& page : machine_.owed) page = false;
        machine_.tracking = false;
        machine_.passes = 0;
        for (auto& frame : machine_.vacant) frame = false;
        switch (machine_.state) {
            case SMIG_STATE_GIVEN:
            case SMIG_STATE_CLONE:
            case SMIG_STATE_OWING:
                break;
            case SMIG_STATE_CAPTURED:
                machine_.guest_runs = true;
                [[fallthrough]];
            default:
                machine_.state = SMIG_STATE_IDLE;
        }
        machine_.owner = 0;
    }
    // A process that died has closed its file.
    void bury() {
        const int owner = machine_.owner;
        if (owner != 0 && process_dead(owner)) close_owner();
    }

    FakeMachine& machine_;
    FakeJump jump_;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(std::size_t{SMIG_BUFFER_PAGES} * kPageBytes);
    std::mt19937_64 random_{7};
};

[[noreturn]] void end_group() {
    ::kill(0, SIGKILL);
    for (;;) ::pause();
}

}  // namespace

void UnmapFakeMachine::operator()(FakeMachine* machine) const {
    for (const int fd : machine->fault_pipe) ::close(fd);
    ::munmap(machine, sizeof(FakeMachine));
}

FakeMachinePtr make_fake_machine() {
    void* memory =
        ::mmap(nullptr, sizeof(FakeMachine), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SMIG_CHECK(memory != MAP_FAILED);
    FakeMachinePtr machine(new (memory) FakeMachine);
    SMIG_CHECK(::pipe2(machine->fault_pipe.data(), O_NONBLOCK | O_CLOEXEC) == 0);
    return machine;
}

void fill_guest(FakeMachine& machine, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::uint64_t pfn = 0; pfn < kFakeTop;) {
        const std::uint64_t end = std::min(kFakeTop, pfn + 1 + random() % 300);
        const auto kind = random() % 3;
        for (; pfn < end; ++pfn) {
            machine.in_image[pfn] = kind != 0;
            if (kind != 2) continue;
            const std::uint64_t mask = pfn % 2 == 0 ? ~0ull : 0x0000'0000'0000'00ff;  // some get shorter
            for (std::size_t at = 0; at < kPageBytes; at += 8) {
                const std::uint64_t value = random() & mask;
                std::memcpy(machine.pages[pfn].data() + at, &value, 8);
            }
        }
    }
}

std::uint64_t differing_pages(const FakeMachine& source, const FakeMachine& target) {
    std::uint64_t count = 0;
    for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn)
        if (source.in_image[pfn] && !target.freed[pfn] &&
            (!target.placed[pfn] || source.pages[pfn] != target.pages[pfn]))
            ++count;
    return count;
}

std::unique_ptr<Device> make_fake_device(FakeMachine& machine, FakeJump jump) {
    return std::make_unique<FakeDevice>(machine, std::move(jump));
}

void FakePower::off() {
    machine_.powered_off = true;
    end_group();
}

void FakePower::reset() {
    machine_.reset = true;
    end_group();
}

}  // namespace smig
