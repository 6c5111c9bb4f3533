// SPDX-License-Identifier: Apache-2.0
// A machine with a module, in memory that forked processes share: what the module would do, without a kernel.
//
// It keeps the module's promises: closing the owner's file (or the death of its process) before commit undoes
// everything, GIVEN and CLONE stay, an image must be whole before a jump.  Its guest writes to memory
// whenever a pass begins and before it is stopped, also to pages that were all-zero or free: a page that a
// pass forgot, or that arrived in the wrong order, differs in the end.
//
// Three frames in four are anonymous.  What is owed at the capture is missing on the machine that jumps (it
// looks it up at `origin`); there, once released, a process of its own is the guest: it touches pages, waits
// for those that are missing, and lets go of some.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/base/power.hpp"
#include "agent/device/device.hpp"
#include "agent/page/pfn.hpp"

namespace smig {

inline constexpr std::uint64_t kFakeTop = 6000;  // not a multiple of 64

struct FakeMachine {
    std::atomic<std::uint32_t> state{SMIG_STATE_IDLE};
    std::atomic<int> owner{0};
    std::atomic<bool> guest_runs{true};  // of a source
    std::atomic<bool> ever_frozen{false};
    std::atomic<bool> released{false};  // of a clone
    std::atomic<bool> powered_off{false};
    std::atomic<bool> reset{false};
    std::atomic<bool> restart_forbidden{false};
    std::atomic<bool> corrupt{false};         // lose a byte of a page when it is placed
    std::atomic<std::uint32_t> fail_step{0};  // CAPTURE or JUMP fails here (enum smig_step + 1)
    std::atomic<int> flows_set{0};
    std::atomic<std::uint64_t> restless_pages{200};  // the guest changes so many between two looks
    std::atomic<std::uint64_t> passes{0};
    std::atomic<bool> spares_only{false};  // held; nothing is kept for a stop
    std::atomic<bool> tracking{false};
    FakeMachine* origin = nullptr;        // of a target: where its clone comes from
    std::atomic<int> guest_pace_us{200};  // of a clone's guest, between two touches
    std::atomic<int> install_pace_us{0};
    std::array<int, 2> fault_pipe{-1, -1};
    std::atomic<std::uint64_t> missing_pages{0};
    std::atomic<std::uint64_t> owed_at_capture{0};
    std::atomic<std::uint64_t> waits{0};  // that the guest has begun
    std::atomic<std::uint64_t> waits_over{0};
    std::atomic<std::uint64_t> guest_frees{0};
    std::array<std::atomic<std::uint64_t>, 3> installed_by{};  // by origin
    std::array<std::atomic<bool>, kFakeTop> owed{};            // source: at the capture; before it: marked
    std::array<std::atomic<bool>, kFakeTop> missing{};         // clone
    std::array<std::atomic<bool>, kFakeTop> waited{};
    std::array<std::atomic<bool>, kFakeTop> freed{};
    std::array<std::atomic<std::uint8_t>, kFakeTop> installs{};
    std::array<std::atomic<std::uint8_t>, kFakeTop> arrivals{};  // installed or passed over
    std::array<std::atomic<bool>, kFakeTop> vacant{};
    std::array<std::atomic<bool>, kFakeTop> to_read{};  // changed since READ gave it, or never read
    std::array<std::atomic<bool>, kFakeTop> in_image{};
    std::array<std::atomic<bool>, kFakeTop> placed{};
    std::array<std::array<std::byte, kPageBytes>, kFakeTop> pages{};
};

struct UnmapFakeMachine {
    void operator()(FakeMachine* machine) const;
};
using FakeMachinePtr = std::unique_ptr<FakeMachine, UnmapFakeMachine>;

// Shared with every process forked later.
FakeMachinePtr make_fake_machine();
// Gives it a guest: pages with random bytes, all-zero pages, frames that hold nothing.
void fill_guest(FakeMachine& machine, std::uint64_t seed);
[[nodiscard]] constexpr bool fake_anonymous(std::uint64_t pfn) {
    return pfn / 64 % 4 != 0;
}
// How many frames of `source`'s image, or owed, differ on `target`; what the guest freed there does not
// count.
std::uint64_t differing_pages(const FakeMachine& source, const FakeMachine& target);

// The jump: called in the process that asked for it, with the hand-over; the machine's state is CLONE.  What
// it returns is the exit code of the process, which does not live on.
using FakeJump = std::function<int(const std::string& handover)>;

std::unique_ptr<Device> make_fake_device(FakeMachine& machine, FakeJump jump = {});

// Ends the caller's process group when the machine is powered off or reset.
class FakePower final : public Power {
public:
    explicit FakePower(FakeMachine& machine) : machine_(machine) {}
    void forbid_restart() override { machine_.restart_forbidden = true; }
    void off() override;
    void reset() override;

private:
    FakeMachine& machine_;
};

}  // namespace smig
