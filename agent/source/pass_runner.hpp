// SPDX-License-Identifier: Apache-2.0
// Sends memory in passes while the guest runs, batch by batch, and says when they end and what stays owed.
//
// The first pass has parts, and brings every page once: what is not anonymous, which is hardly written; then
// anonymous memory; and of that what was written meanwhile at last, so that there is the least time to write
// it once more. Thread: the stop process's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/policy/auto_mode.hpp"
#include "agent/policy/forecast.hpp"
#include "agent/policy/pacing.hpp"
#include "agent/policy/passes.hpp"
#include "agent/policy/transfer.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/source/machine.hpp"
#include "agent/source/shared_state.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

class PassRunner {
public:
    struct Parts {
        const TransferOptions& transfer;
        SharedState& shared;
        Device& device;
        ImageSender& sender;
        std::function<void()> expect_device;  // one ioctl may take long from here on ...
        Pulse pulse;                          // ... to here
        std::uint64_t rtt_ns = 0;             // of the link; 0: not known
    };
    // All of it must outlive this.  Allocates what it will need.
    PassRunner(const Parts& parts, Pfn top);

    // What an answer says: the event for the machine, none while a pass goes on.  Error: the connection's, or
    // the device's while it reads.
    using Step = Result<std::optional<SourceEvent>>;

    // TRACK.  Hashes tell what has changed where page tables cannot: slower, and as sure.
    Result<void> follow();
    [[nodiscard]] bool following() const { return following_; }
    // PASS.
    Step begin();
    // Another batch of it.
    Step go_on();
    // Leaves it unfinished: the module has the rest of it sent in the stop.
    Step leave();
    // A dry run that only watches: nothing to do before this moment.
    [[nodiscard]] std::uint64_t look_again_ns() const { return look_again_ns_; }
    SourceEvent end_watching();

    [[nodiscard]] bool under_way() const { return under_way_; }
    // How long the cap on the rate forbids another batch.
    [[nodiscard]] std::uint64_t wait_ns() const { return pacer_.wait_ns(mono_ns()); }
    // The bitmap of a pass, free before the first one.
    [[nodiscard]] ImageBitmap& frames() { return frames_; }

    // What the link takes, as far as it may be used.
    [[nodiscard]] double link_bytes_per_s() const;
    // What is anonymous and lacking at the stop is to stay owed.
    [[nodiscard]] bool leaves_owed() const { return leaves_owed_; }
    // Why, and why the passes ended, if that was decided here.
    [[nodiscard]] const std::string& explanation() const { return explanation_; }
    [[nodiscard]] const Forecast& forecast_made() const { return forecast_; }
    // All that was sent while the guest ran, into the report.  What is sent from here on is the stop's.
    void note(smig_wire_go& go);
    [[nodiscard]] const SentCounts& counts_before() const { return counts_before_; }

private:
    Result<smig_pass> find(std::uint32_t flags);
    [[nodiscard]] std::span<const std::uint32_t> parts_of_next_pass() const;
    Step begin_part();
    Result<std::uint64_t> look();
    Step begin_watching();
    SourceEvent end();
    SourceEvent owe_the_rest(smig_wire_stop_reason reason);
    [[nodiscard]] AutoDecision judge_pass() const;
    [[nodiscard]] bool automatic() const { return parts_.transfer.mode == Mode::automatic; }

    Parts parts_;
    const ModeTraits& mode_;
    ImageBitmap frames_;                            // to be read in this pass
    Pfn next_;                                      // of them
    std::span<const std::uint32_t> parts_to_come_;  // of this pass: flags of its PASS
    std::uint64_t passes_begun_ = 0;
    bool following_ = false;
    bool hashes_ = false;
    bool under_way_ = false;
    bool leaves_owed_ = false;
    PassPolicy policy_;
    AutoPolicy auto_policy_;
    Pacer pacer_;
    PassSeen seen_;
    ReadSpan pass_;  // the last one that was begun
    ReadSpan part_;  // its last part
    std::uint64_t previous_pages_ = 0;
    double previous_page_ns_ = 0;
    SentCounts counts_before_;  // this pass
    ForecastSample sample_;     // of a dry run
    Forecast forecast_;
    std::uint64_t look_again_ns_ = 0;
    std::uint64_t first_pass_ns_ = 0;
    std::uint64_t stop_reason_ = SMIG_STOP_NO_PASSES;
    std::string explanation_;
};

}  // namespace smig
