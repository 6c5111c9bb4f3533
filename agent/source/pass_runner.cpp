// SPDX-License-Identifier: Apache-2.0
#include "agent/source/pass_runner.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "agent/base/clock.hpp"

namespace smig {

namespace {

constexpr std::uint64_t kSampleNs = 3'000'000'000;  // a dry run sends so long, and watches as long again
constexpr std::uint64_t kBurstBytes = 1 << 20;      // of a capped pass: one frame of pages
constexpr std::array<std::uint32_t, 3> kFirstPass{SMIG_PASS_NO_ANON, SMIG_PASS_NO_HOT | SMIG_PASS_UNREAD,
                                                  SMIG_PASS_UNREAD};
constexpr std::array<std::uint32_t, 1> kWhole{0};
constexpr std::array<std::uint32_t, 1> kWithoutAnonymous{SMIG_PASS_NO_ANON};

}  // namespace

PassRunner::PassRunner(const Parts& parts, Pfn top)
    : parts_(parts),
      mode_(traits_of(parts.transfer.mode)),
      frames_(top),
      leaves_owed_(mode_.owes && mode_.one_pass),
      policy_(parts.transfer.passes),
      auto_policy_(parts.transfer.passes),
      pacer_(parts.transfer.bandwidth_bytes_per_s, kBurstBytes) {}

Result<void> PassRunner::follow() {
    const TransferOptions& transfer = parts_.transfer;
    std::uint32_t flags = transfer.verify ? SMIG_TRACK_VERIFY : 0;
    if (transfer.hash) flags |= SMIG_TRACK_HASH;
    smig_track track{};
    parts_.expect_device();
    auto tracked = parts_.device.track(track, flags);
    if (!tracked && !transfer.hash) {
        flags |= SMIG_TRACK_HASH;
        tracked = parts_.device.track(track, flags);
    }
    parts_.pulse();
    hashes_ = (flags & SMIG_TRACK_HASH) != 0;
    following_ = tracked.ok();
    return tracked;
}

// Its frames are in frames_.
Result<smig_pass> PassRunner::find(std::uint32_t flags) {
    smig_pass pass{};
    pass.bitmap = std::bit_cast<std::uint64_t>(frames_.words().data());
    pass.bitmap_bytes = frames_.bytes();
    parts_.expect_device();
    auto found = parts_.device.pass(pass, flags);
    parts_.pulse();
    if (!found) return found.error();
    return pass;
}

std::span<const std::uint32_t> PassRunner::parts_of_next_pass() const {
    if (!mode_.anonymous) return kWithoutAnonymous;
    // Hashes choose everything in every part; a dry run is to see a sample of all.
    if (passes_begun_ > 0 || hashes_ || parts_.transfer.dry_run) return kWhole;
    return kFirstPass;
}

PassRunner::Step PassRunner::begin() {
    const std::uint64_t now_ns = mono_ns();
    parts_to_come_ = parts_of_next_pass();
    auto found = find(parts_to_come_.front());
    if (!found)
        return std::optional<SourceEvent>(source_event::Broken{SMIG_REASON_DEVICE, found.error().text});
    parts_to_come_ = parts_to_come_.subspan(1);
    const smig_pass& pass = found.value();
    previous_pages_ = seen_.pages;
    previous_page_ns_ =
        seen_.pages == 0 ? 0 : static_cast<double>(seen_.took_ns) / static_cast<double>(seen_.pages);
    seen_ = {};
    seen_.number = ++passes_begun_;
    seen_.pages = pass.pages;
    seen_.changed_pages = pass.changed_pages;
    sample_.in_use_pages = pass.in_use_pages;
    if (first_pass_ns_ != 0)
        seen_.exposed_ns = mean_exposure_ns(pass_, part_, pass.changed_pages, now_ns);
    else
        first_pass_ns_ = now_ns;
    pass_ = part_ = {now_ns, now_ns, pass.pages};
    counts_before_ = parts_.sender.counts();
    next_ = frames_.next(Pfn{0});
    PassProgress& progress = parts_.shared.progress;
    progress.number = seen_.number;
    // What later parts will find is not known, but in a first pass it is all that is in use.
    progress.pages = parts_to_come_.empty() ? pass.pages : pass.in_use_pages;
    progress.done_pages = 0;
    if (automatic() && seen_.number > 1 && !parts_.transfer.dry_run) {
        const AutoDecision decision = judge_pass();
        explanation_ = decision.why;
        if (decision.switch_now) return std::optional<SourceEvent>(owe_the_rest(SMIG_STOP_OWED));
    }
    under_way_ = true;
    return std::optional<SourceEvent>();
}

// Another part of the pass that is under way.
PassRunner::Step PassRunner::begin_part() {
    const std::uint64_t now_ns = mono_ns();
    auto found = find(parts_to_come_.front());
    if (!found) {
        under_way_ = false;
        return std::optional<SourceEvent>(source_event::Broken{SMIG_REASON_DEVICE, found.error().text});
    }
    parts_to_come_ = parts_to_come_.subspan(1);
    seen_.pages += found.value().pages;
    part_ = {now_ns, now_ns, found.value().pages};
    next_ = frames_.next(Pfn{0});
    return std::optional<SourceEvent>();
}

AutoDecision PassRunner::judge_pass() const {
    AutoSeen seen;
    seen.number = seen_.number;
    seen.pages = seen_.pages;
    seen.changed_pages = seen_.changed_pages;
    seen.previous_pages = previous_pages_;
    seen.exposed_ns = seen_.exposed_ns;
    seen.runs = frames_.runs();
    seen.page_ns = previous_page_ns_;
    seen.bytes_per_s = link_bytes_per_s();
    seen.rtt_ns = parts_.rtt_ns;
    return auto_policy_.before_pass(seen);
}

SourceEvent PassRunner::owe_the_rest(smig_wire_stop_reason reason) {
    under_way_ = false;
    leaves_owed_ = true;
    stop_reason_ = reason;
    return source_event::PassDone{false};
}

PassRunner::Step PassRunner::go_on() {
    ImageSender& sender = parts_.sender;
    const std::uint64_t bytes_before = sender.counts().payload_bytes;
    const Pfn first = next_;
    if (auto sent = sender.send_batch(frames_, next_); !sent) {
        under_way_ = false;
        return sent.error();
    }
    const std::uint64_t now_ns = mono_ns();
    pacer_.sent(sender.counts().payload_bytes - bytes_before, now_ns);
    sender.compression().waited(pacer_.wait_ns(now_ns));
    PassProgress& progress = parts_.shared.progress;
    progress.done_pages += frames_.count_in({first, PageCount{next_.value - first.value}}).value;
    progress.sent_bytes = sender.counts().payload_bytes;
    progress.bytes_per_s = static_cast<std::uint64_t>(link_bytes_per_s());
    const bool sampled = parts_.transfer.dry_run && now_ns - pass_.begun_ns >= kSampleNs;
    if (next_ < frames_.top() && !sampled) return std::optional<SourceEvent>();
    if (parts_.transfer.dry_run) return begin_watching();
    if (!parts_to_come_.empty()) return begin_part();
    return std::optional<SourceEvent>(end());
}

// A dry run has sent enough.  From here on it only looks at what the guest writes.
PassRunner::Step PassRunner::begin_watching() {
    under_way_ = false;
    if (auto sent = parts_.sender.flush(); !sent) return sent.error();
    const SentCounts counts = parts_.sender.counts() - counts_before_;
    sample_.read_pages = parts_.shared.progress.done_pages;
    sample_.took_ns = mono_ns() - pass_.begun_ns;
    sample_.payload_bytes = counts.payload_bytes;
    sample_.read_ns = counts.read_ns;
    auto found = look();
    if (!found)
        return std::optional<SourceEvent>(source_event::Broken{SMIG_REASON_DEVICE, found.error().text});
    sample_.early_ns = mono_ns() - pass_.begun_ns;
    sample_.early_changed_pages = found.value();
    look_again_ns_ = pass_.begun_ns + 2 * std::max(sample_.early_ns, kSampleNs);
    return std::optional<SourceEvent>();
}

SourceEvent PassRunner::end_watching() {
    look_again_ns_ = 0;
    auto found = look();
    if (!found) return source_event::Broken{SMIG_REASON_DEVICE, found.error().text};
    sample_.late_ns = mono_ns() - pass_.begun_ns;
    sample_.late_changed_pages = found.value();
    forecast_ = forecast(sample_, parts_.transfer.passes, link_bytes_per_s());
    return source_event::CancelAsked{};
}

// Pages sent and written since.  They are not read again, so they stay written.
Result<std::uint64_t> PassRunner::look() {
    auto found = find(mode_.anonymous ? 0 : SMIG_PASS_NO_ANON);
    if (!found) return found.error();
    return found.value().changed_pages;
}

// The stop is not capped, but what nobody has seen the link do is not promised.
double PassRunner::link_bytes_per_s() const {
    const auto cap = static_cast<double>(parts_.transfer.bandwidth_bytes_per_s);
    return cap > 0 ? std::min(cap, parts_.sender.bytes_per_s()) : parts_.sender.bytes_per_s();
}

SourceEvent PassRunner::end() {
    under_way_ = false;
    const SentCounts counts = parts_.sender.counts() - counts_before_;
    pass_.ended_ns = part_.ended_ns = mono_ns();
    seen_.took_ns = pass_.ended_ns - pass_.begun_ns;
    seen_.payload_bytes = counts.payload_bytes;
    seen_.read_ns = counts.read_ns;
    const PassDecision decision = policy_.after(seen_, link_bytes_per_s());
    parts_.shared.progress.dirty_pages_per_s = static_cast<std::uint64_t>(decision.dirty_pages_per_s);
    parts_.shared.progress.expected_stop_ms = decision.expected_stop_ms;
    if (mode_.one_pass) return owe_the_rest(SMIG_STOP_OWED);
    if (!decision.stop) return source_event::PassDone{true};
    stop_reason_ = *decision.stop;
    if (automatic()) {
        const AutoDecision chosen = auto_policy_.after_passes(*decision.stop, decision);
        explanation_ = explanation_.empty() ? chosen.why : explanation_ + "; " + chosen.why;
        leaves_owed_ = chosen.switch_now;
    }
    return source_event::PassDone{false};
}

PassRunner::Step PassRunner::leave() {
    under_way_ = false;
    if (auto sent = parts_.sender.flush(); !sent) return sent.error();
    stop_reason_ = SMIG_STOP_ASKED;
    if (automatic()) {
        leaves_owed_ = true;
        explanation_ = "asked to switch now: what is anonymous and was not sent stays owed";
    }
    return std::optional<SourceEvent>(source_event::PassDone{false});
}

void PassRunner::note(smig_wire_go& go) {
    counts_before_ = parts_.sender.counts();
    go.passes = seen_.number;
    go.stop_reason = stop_reason_;
    go.hashed = hashes_ ? 1 : 0;
    go.pass_data_pages = counts_before_.data_pages;
    go.pass_zero_pages = counts_before_.zero_pages;
    go.pass_same_pages = counts_before_.same_pages;
    go.pass_payload_bytes = counts_before_.payload_bytes;
    go.pass_read_ns = counts_before_.read_ns;
    if (first_pass_ns_ != 0) go.pass_ns = mono_ns() - first_pass_ns_;
    if (parts_.transfer.bandwidth_bytes_per_s != 0) parts_.sender.compression().restart();
}

}  // namespace smig
