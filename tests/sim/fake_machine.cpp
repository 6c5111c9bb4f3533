// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/fake_machine.hpp"

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
        if (role == SMIG_ROLE_TARGET && state == SMIG_STATE_CLONE) return {};
        if (state != SMIG_STATE_IDLE) return wrong_state("BEGIN");
        machine_.state = role == SMIG_ROLE_SOURCE ? SMIG_STATE_SOURCE : SMIG_STATE_TARGET;
        return {};
    }
    Result<void> set_flows(smig_flows& flows) override {
        machine_.flows_set = static_cast<int>(flows.nr_flows);
        return {};
    }
    Result<void> exempt() override { return {}; }

    Result<void> prepare(smig_prepare& prepare) override {
        if (!in(SMIG_STATE_SOURCE)) return wrong_state("PREPARE");
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
        machine_.tracking = true;
        for (auto& page : machine_.to_read) page = true;
        return {};
    }
    Result<void> pass(smig_pass& pass) override {
        if (!in(SMIG_STATE_SOURCE) || !machine_.tracking) return wrong_state("PASS");
        stir_guest();
        pass.number = ++machine_.passes;
        auto* words = pointer<std::uint64_t>(pass.bitmap);
        std::fill_n(words, pass.bitmap_bytes / 8, 0);
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
            if (machine_.in_image[pfn]) ++pass.in_use_pages;
            // A dirty bit suspects more than was changed.
            if (!machine_.in_image[pfn] || (!machine_.to_read[pfn] && pfn % 53 != 0)) continue;
            words[pfn / 64] |= 1ull << (pfn % 64);
            ++pass.pages;
            if (pass.number > 1) ++pass.changed_pages;
        }
        return {};
    }
    Result<void> capture(smig_capture& capture, std::uint32_t flags) override {
        if (!in(SMIG_STATE_SOURCE)) return wrong_state("CAPTURE");
        SMIG_CHECK((flags & ~SMIG_CAPTURE_VERIFY) == 0 && capture.send_bitmap != 0);
        if (machine_.tracking) stir_guest();
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
        capture.header.image_pages = fill(capture.image_bitmap, machine_.in_image);
        if (!machine_.tracking)
            for (auto& page : machine_.to_read) page = true;
        for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn)
            if (!machine_.in_image[pfn]) machine_.to_read[pfn] = false;
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
        machine_.state = SMIG_STATE_SOURCE;
        return {};
    }

private:
    [[nodiscard]] bool owns() const { return machine_.owner == ::getpid(); }
    [[nodiscard]] bool in(std::uint32_t state) const { return owns() && machine_.state == state; }
    template <std::size_t kCount>
    static std::uint64_t fill(std::uint64_t bitmap, const std::array<std::atomic<bool>, kCount>& frames) {
        auto* words = pointer<std::uint64_t>(bitmap);
        std::fill_n(words, (kCount + 63) / 64, 0);
        std::uint64_t count = 0;
        for (std::uint64_t pfn = 0; pfn < kCount; ++pfn) {
            if (!frames[pfn]) continue;
            words[pfn / 64] |= 1ull << (pfn % 64);
            ++count;
        }
        return count;
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
        }
    }
    void close_owner() {
        machine_.tracking = false;
        machine_.passes = 0;
        for (auto& frame : machine_.vacant) frame = false;
        switch (machine_.state) {
            case SMIG_STATE_GIVEN:
            case SMIG_STATE_CLONE:
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
    ::munmap(machine, sizeof(FakeMachine));
}

FakeMachinePtr make_fake_machine() {
    void* memory =
        ::mmap(nullptr, sizeof(FakeMachine), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SMIG_CHECK(memory != MAP_FAILED);
    return FakeMachinePtr(new (memory) FakeMachine);
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
        if (source.in_image[pfn] && (!target.placed[pfn] || source.pages[pfn] != target.pages[pfn])) ++count;
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
