// SPDX-License-Identifier: Apache-2.0
#include "agent/source/stop_process.hpp"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "agent/base/clock.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/policy/forecast.hpp"
#include "agent/policy/pacing.hpp"
#include "agent/policy/passes.hpp"
#include "agent/source/caller_service.hpp"
#include "agent/source/control_port.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/source/locked_memory.hpp"

namespace smig {

namespace {

constexpr std::size_t kTargetPayload = 8192;  // the longest frame a target sends to a stop process is FAILED
constexpr std::int64_t kSilenceMs = 10'000;   // the supervisor's patience between two pulses ...
constexpr std::int64_t kDeviceMs = 120'000;   // ... and while one ioctl reclaims memory or stops the machine
constexpr std::int64_t kStallMs = 10'000;     // no byte taken for so long: the link is down
constexpr std::int64_t kFarewellMs = 1'000;
constexpr std::int64_t kSupervisorMs = 5'000;
constexpr std::int64_t kVoidServiceMs = 600'000;  // a clone of a move that was undone may ask for so long
constexpr int kCaptureAttempts = 3;
constexpr std::uint64_t kMoreShadowPages = 2048;
constexpr std::uint64_t kSampleNs = 3'000'000'000;  // a dry run sends so long, and watches as long again
constexpr std::uint64_t kBurstBytes = 1 << 20;      // of a capped pass: one frame of pages

class StopProcess final : public FrameSink {
public:
    StopProcess(StopPlan& plan, StopConnection connection, Fd listener, Fd report)
        : plan_(plan),
          shared_(*plan.shared),
          machine_(plan.machine),
          pulse_([this] { expect_within(kSilenceMs); }),
          channel_(std::move(connection.socket), connection.writer,
                   FrameReader(kTargetPayload, connection.next_received_sequence), pulse_),
          port_(std::move(listener), pulse_),
          callers_(port_, shared_, *plan.power, plan.keep_source),
          report_(std::move(report)),
          policy_(plan.transfer.passes),
          pacer_(plan.transfer.bandwidth_bytes_per_s, kBurstBytes) {}

    int run() {
        if (auto prepared = get_ready(); !prepared)
            feed(source_event::Broken{SMIG_REASON_DEVICE, prepared.error().text});
        else
            feed(source_event::ClocksSampled{});
        while (!over()) feed(next_event());
        return 0;
    }

    Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) override {
        return channel_.send(type, pieces, kStallMs);
    }

private:
    void expect_within(std::int64_t ms) { shared_.heard_by_ms = mono_ms() + ms; }

    // Everything that is needed while the guest is stopped.
    Result<void> get_ready() {
        pulse_();
        if (auto locked = lock_memory(); !locked) return locked;
        auto opened = plan_.open_device();
        if (!opened) return opened.error();
        device_ = std::move(opened).value();
        if (auto told = device_->info(info_); !told) return told;
        for (ImageBitmap* bitmap : {&image_, &to_send_, &pass_}) *bitmap = ImageBitmap(Pfn{info_.top_pfn});
        sender_ = std::make_unique<ImageSender>(*device_, *this, plan_.transfer.compress);
        polled_.reserve(16);
        if (auto reserved = reserve_heap(); !reserved) return reserved;
        const std::int64_t deadline = mono_ms() + kSupervisorMs;
        while (!shared_.supervisor_ready) {
            if (mono_ms() > deadline) return Error{Remedy::fatal, "the supervisor did not start"};
            ::poll(nullptr, 0, 5);
        }
        return {};
    }

    [[nodiscard]] bool over() const {
        if (is_clone_) return true;
        if (machine_.state() != SMIG_SOURCE_ROLLED_BACK) return false;
        return !shared_.jump_sent || mono_ms() > void_until_ms_;
    }

    void feed(const SourceEvent& first) {
        std::optional<SourceEvent> event = first;
        while (event) {
            const smig_session_state before = machine_.state();
            const SourceActions actions = machine_.on(*event, mono_ms());
            event.reset();
            shared_.state = machine_.state();
            if (machine_.state() != before) hold();
            for (const SourceAction& action : actions)
                if (auto outcome = perform(action)) event = outcome;
        }
    }

    void hold() {
        const std::int64_t until = mono_ms() + plan_.holds.ms_in(machine_.state());
        for (std::int64_t left = until - mono_ms(); left > 0; left = until - mono_ms()) {
            pulse_();
            ::poll(nullptr, 0, static_cast<int>(std::min(left, kPulseMs)));
        }
    }

    std::optional<SourceEvent> perform(const SourceAction& action) {
        if (callers_.perform(action, machine_)) return {};
        switch (action.what) {
            case SourceDo::send_land:
                return send(SMIG_WIRE_LAND, encode(plan_.land));
            case SourceDo::prepare:
                return prepare();
            case SourceDo::pass:
                return begin_pass();
            case SourceDo::stop:
                return stop();
            case SourceDo::send_image:
                return send_image();
            case SourceDo::send_jump:
                // First, so that whoever goes on after this process knows that a clone may ask.
                shared_.jump_sent = true;
                go_.jump_ns = mono_ns();
                return send(SMIG_WIRE_JUMP, {});
            case SourceDo::commit:
                return commit();
            case SourceDo::undo_stop:
                if (!device_->thaw()) device_.reset();
                return {};
            case SourceDo::tell_peer:
                tell_peer();
                return {};
            case SourceDo::report_back:
                report_back();
                return {};
            default:
                return {};
        }
    }

    std::optional<SourceEvent> send(smig_wire_type type, ByteView payload) {
        auto sent = channel_.send(type, {payload}, kStallMs);
        if (sent) return {};
        return source_event::Broken{SMIG_REASON_CANCELLED, sent.error().text};
    }

    smig_flows flows() const {
        smig_flows flows{};
        flows.nr_flows = 1;
        smig_flow& flow = flows.flows[0];
        flow.family = plan_.network.stay.family;
        std::memcpy(flow.local, plan_.network.stay.bytes.data(), sizeof(flow.local));
        std::memcpy(flow.peer, plan_.network.peer.bytes.data(), sizeof(flow.peer));
        flow.nr_ports = 2;
        flow.ports[0] = plan_.target_port;
        flow.ports[1] = static_cast<std::uint16_t>(plan_.land.control_port);
        return flows;
    }

    Result<void> reserve_memory(std::uint64_t extra_shadow_pages, ImageBitmap* vacant) {
        expect_within(kDeviceMs);
        smig_prepare prepare{};
        prepare.spare_pages = landed_.vacant_pages;
        prepare.extra_shadow_pages = extra_shadow_pages;
        if (vacant != nullptr) {
            // The target may have more memory than this guest.
            prepare.avoid_start = std::min<std::uint64_t>(landed_.kernel_start, info_.top_pfn);
            prepare.avoid_pages =
                std::min<std::uint64_t>(landed_.kernel_pages, info_.top_pfn - prepare.avoid_start);
            prepare.vacant_bitmap = std::bit_cast<std::uint64_t>(vacant->words().data());
            prepare.vacant_bitmap_bytes = vacant->bytes();
        }
        auto reserved = device_->prepare(prepare);
        pulse_();
        return reserved;
    }

    Result<void> begin_move() {
        if (auto begun = device_->begin(SMIG_ROLE_SOURCE); !begun) return begun;
        smig_flows allowed = flows();
        if (auto set = device_->set_flows(allowed); !set) return set;
        if (auto mapped = sender_->get_ready(); !mapped) return mapped;
        // No pass has begun: its bitmap is free.
        if (auto reserved = reserve_memory(0, &pass_); !reserved) return reserved;
        return sender_->send_vacant(pass_);
    }

    SourceEvent prepare() {
        if (auto begun = begin_move(); !begun) return sending_failed(begun.error());
        if (!plan_.transfer.precopy) {
            go_.stop_reason = SMIG_STOP_NO_PASSES;
            return source_event::Prepared{false};
        }
        if (shared_.cancel_asked) return source_event::CancelAsked{};
        expect_within(kDeviceMs);
        smig_track track{};
        std::uint32_t flags = plan_.transfer.verify ? SMIG_TRACK_VERIFY : 0;
        if (plan_.transfer.hash) flags |= SMIG_TRACK_HASH;
        auto tracked = device_->track(track, flags);
        if (!tracked && !plan_.transfer.hash) {
            // Hashes tell what has changed where page tables cannot: slower, and as sure.
            flags |= SMIG_TRACK_HASH;
            tracked = device_->track(track, flags);
        }
        go_.hashed = (flags & SMIG_TRACK_HASH) != 0 ? 1 : 0;
        pulse_();
        tracking_ = tracked.ok();
        if (!tracked)
            return source_event::Broken{SMIG_REASON_DEVICE,
                                        tracked.error().text + "; --mode stop-copy needs it not"};
        return source_event::Prepared{true};
    }

    // PASS; its frames are in pass_.
    Result<smig_pass> find_pass() {
        smig_pass pass{};
        pass.bitmap = std::bit_cast<std::uint64_t>(pass_.words().data());
        pass.bitmap_bytes = pass_.bytes();
        expect_within(kDeviceMs);
        auto found = device_->pass(pass);
        pulse_();
        if (!found) return found.error();
        return pass;
    }

    std::optional<SourceEvent> begin_pass() {
        const std::uint64_t now_ns = mono_ns();
        auto found = find_pass();
        if (!found) return source_event::Broken{SMIG_REASON_DEVICE, found.error().text};
        const smig_pass& pass = found.value();
        seen_ = {};
        seen_.number = pass.number;
        seen_.pages = pass.pages;
        seen_.changed_pages = pass.changed_pages;
        sample_.in_use_pages = pass.in_use_pages;
        if (pass_begun_ns_ != 0)
            seen_.since_previous_ns = now_ns - pass_begun_ns_;
        else
            first_pass_ns_ = now_ns;
        pass_begun_ns_ = now_ns;
        counts_before_ = sender_->counts();
        next_ = pass_.next(Pfn{0});
        passing_ = true;
        shared_.progress.number = pass.number;
        shared_.progress.pages = pass.pages;
        shared_.progress.done_pages = 0;
        return {};
    }

    // Another batch of the pass; what came of it, if it was the last or failed.
    std::optional<SourceEvent> go_on_passing() {
        const std::uint64_t bytes_before = sender_->counts().payload_bytes;
        const Pfn first = next_;
        if (auto sent = sender_->send_batch(pass_, next_); !sent) {
            passing_ = false;
            return sending_failed(sent.error());
        }
        const std::uint64_t now_ns = mono_ns();
        pacer_.sent(sender_->counts().payload_bytes - bytes_before, now_ns);
        sender_->compression().waited(pacer_.wait_ns(now_ns));
        shared_.progress.done_pages += pass_.count_in({first, PageCount{next_.value - first.value}}).value;
        shared_.progress.sent_bytes = sender_->counts().payload_bytes;
        shared_.progress.bytes_per_s = static_cast<std::uint64_t>(link_bytes_per_s());
        const bool sampled = plan_.transfer.dry_run && now_ns - pass_begun_ns_ >= kSampleNs;
        if (next_ < pass_.top() && !sampled) return {};
        return plan_.transfer.dry_run ? begin_watching() : end_pass();
    }

    // A dry run has sent enough.  From here on it only looks at what the guest writes.
    std::optional<SourceEvent> begin_watching() {
        passing_ = false;
        if (auto sent = sender_->flush(); !sent) return sending_failed(sent.error());
        const SentCounts counts = sender_->counts() - counts_before_;
        sample_.read_pages = shared_.progress.done_pages;
        sample_.took_ns = mono_ns() - pass_begun_ns_;
        sample_.payload_bytes = counts.payload_bytes;
        sample_.read_ns = counts.read_ns;
        auto found = look();
        if (!found) return source_event::Broken{SMIG_REASON_DEVICE, found.error().text};
        sample_.early_ns = mono_ns() - pass_begun_ns_;
        sample_.early_changed_pages = found.value();
        look_again_ns_ = pass_begun_ns_ + 2 * std::max(sample_.early_ns, kSampleNs);
        return {};
    }

    SourceEvent end_watching() {
        look_again_ns_ = 0;
        auto found = look();
        if (!found) return source_event::Broken{SMIG_REASON_DEVICE, found.error().text};
        sample_.late_ns = mono_ns() - pass_begun_ns_;
        sample_.late_changed_pages = found.value();
        outcome_.forecast = forecast(sample_, plan_.transfer.passes, link_bytes_per_s());
        return source_event::CancelAsked{};
    }

    // Pages sent and written since.  They are not read again, so they stay written.
    Result<std::uint64_t> look() {
        auto found = find_pass();
        if (!found) return found.error();
        return found.value().changed_pages;
    }

    // The stop is not capped, but what nobody has seen the link do is not promised.
    [[nodiscard]] double link_bytes_per_s() const {
        const auto cap = static_cast<double>(plan_.transfer.bandwidth_bytes_per_s);
        return cap > 0 ? std::min(cap, sender_->bytes_per_s()) : sender_->bytes_per_s();
    }

    SourceEvent end_pass() {
        passing_ = false;
        const SentCounts counts = sender_->counts() - counts_before_;
        seen_.took_ns = mono_ns() - pass_begun_ns_;
        seen_.payload_bytes = counts.payload_bytes;
        seen_.read_ns = counts.read_ns;
        const PassDecision decision = policy_.after(seen_, link_bytes_per_s());
        shared_.progress.dirty_pages_per_s = static_cast<std::uint64_t>(decision.dirty_pages_per_s);
        shared_.progress.expected_stop_ms = decision.expected_stop_ms;
        go_.passes = seen_.number;
        if (decision.stop) go_.stop_reason = *decision.stop;
        return source_event::PassDone{!decision.stop};
    }

    // A pass that is left unfinished: the module has the rest of it sent in the stop.
    SourceEvent leave_pass() {
        passing_ = false;
        if (auto sent = sender_->flush(); !sent) return sending_failed(sent.error());
        go_.passes = seen_.number;
        go_.stop_reason = SMIG_STOP_ASKED;
        return source_event::PassDone{false};
    }

    // Both returns of CAPTURE come through here.
    Result<void> capture() {
        capture_ = {};
        capture_.handover = std::bit_cast<std::uint64_t>(handover_.data());
        capture_.image_bitmap = std::bit_cast<std::uint64_t>(image_.words().data());
        capture_.image_bitmap_bytes = image_.bytes();
        capture_.send_bitmap = std::bit_cast<std::uint64_t>(to_send_.words().data());
        capture_.send_bitmap_bytes = to_send_.bytes();
        outcome_.stop_begun_ns = mono_ns();
        expect_within(kDeviceMs);
        return device_->capture(capture_, tracking_ && plan_.transfer.verify ? SMIG_CAPTURE_VERIFY : 0);
    }

    SourceEvent stop() {
        // A target that has given up meanwhile need not cost the guest a stop.
        if (auto early = receive()) return *early;
        note_passes();
        Result<void> begun;
        for (int attempt = 0; attempt < kCaptureAttempts; ++attempt) {
            begun = reserve_memory(kMoreShadowPages * static_cast<std::uint64_t>(attempt), nullptr);
            if (!begun) break;
            if (shared_.cancel_asked) return source_event::StopFailed{"cancelled"};
            begun = capture();
            if (begun || begun.error().remedy != Remedy::retry) break;
        }
        pulse_();
        if (!begun) return source_event::StopFailed{begun.error().text};
        if (capture_.role == SMIG_ROLE_TARGET) {
            note_clone(outcome_, capture_);
            wake_as_clone();
            return source_event::DeadlinePassed{};  // says nothing to the machine, which is over
        }
        if (shared_.cancel_asked) {
            if (!device_->thaw()) device_.reset();
            return source_event::StopFailed{"cancelled"};
        }
        note_source(go_, capture_);
        go_.captured_ns = mono_ns();
        return source_event::Stopped{};
    }

    // Everything that was sent while the guest ran.
    void note_passes() {
        counts_before_ = sender_->counts();
        go_.pass_data_pages = counts_before_.data_pages;
        go_.pass_zero_pages = counts_before_.zero_pages;
        go_.pass_same_pages = counts_before_.same_pages;
        go_.pass_payload_bytes = counts_before_.payload_bytes;
        go_.pass_read_ns = counts_before_.read_ns;
        if (first_pass_ns_ != 0) go_.pass_ns = mono_ns() - first_pass_ns_;
        if (plan_.transfer.bandwidth_bytes_per_s != 0) sender_->compression().restart();
    }

    void wake_as_clone() {
        is_clone_ = true;
        shared_.jump_sent = false;
        shared_.reported = false;
        std::memcpy(shared_.handover, handover_.data(), handover_.size());
        shared_.handover_length = SMIG_WIRE_HANDOVER_LEN;
        close_silently(channel_.release_fd().release());
        CloneStart start{*device_,
                         std::string_view(handover_.data(), handover_.size()),
                         plan_.network,
                         plan_.holds,
                         pulse_,
                         outcome_,
                         [this] {
                             device_.reset();  // before the report: whoever reads it may move on
                             write_outcome(report_.get(), outcome_);
                             shared_.reported = true;
                         }};
        while (!plan_.clone_main(start)) {
            pulse_();
            ::poll(nullptr, 0, 1000);
            plan_.power->reset();
        }
    }

    Result<void> send_stop_image() {
        if (auto sent = sender_->send_head(capture_.header, image_); !sent) return sent;
        for (Pfn next = to_send_.next(Pfn{0}); next < to_send_.top();)
            if (auto sent = sender_->send_batch(to_send_, next); !sent) return sent;
        return {};
    }

    SourceEvent send_image() {
        if (auto sent = send_stop_image(); !sent) return sending_failed(sent.error());
        if (auto verified = device_->verify(); !verified)
            return source_event::Broken{SMIG_REASON_DEVICE, verified.error().text};
        const smig_wire_image_end end = sender_->end();
        if (auto sent = channel_.send(SMIG_WIRE_IMAGE_END, {encode(end)}, kStallMs); !sent)
            return sending_failed(sent.error());
        go_.image_end_ns = mono_ns();
        const SentCounts counts = sender_->counts() - counts_before_;
        go_.data_pages = counts.data_pages;
        go_.zero_pages = counts.zero_pages;
        go_.payload_bytes = counts.payload_bytes;
        go_.read_ns = counts.read_ns;
        return source_event::ImageSent{end};
    }

    // The target may have said why before it hung up.
    SourceEvent sending_failed(const Error& error) {
        if (error.remedy != Remedy::peer_lost) return source_event::Broken{SMIG_REASON_DEVICE, error.text};
        auto frame = channel_.receive(mono_ms() + kPulseMs);
        if (frame && frame.value().type == SMIG_WIRE_FAILED) return event_of(frame.value());
        return source_event::Lost{false, error.text};
    }

    SourceEvent commit() {
        go_.alive_ns = mono_ns();
        if (auto committed = device_->commit(); !committed) {
            smig_status status{};
            if (!device_->status(status) || status.state != SMIG_STATE_GIVEN)
                return source_event::CommitFailed{committed.error().text};
        }
        go_.commit_ns = mono_ns();
        shared_.go = go_;
        shared_.go_valid = true;
        plan_.power->forbid_restart();
        return source_event::Committed{};
    }

    void tell_peer() {
        const Bytes payload = encode(Failure{machine_.reason(), machine_.text()});
        if (channel_.send(SMIG_WIRE_ABORT, {payload}, kFarewellMs)) ::shutdown(channel_.fd(), SHUT_WR);
        channel_.close();
    }

    void report_back() {
        outcome_.verdict = machine_.refused() ? Verdict::refused : Verdict::rolled_back;
        if (outcome_.forecast.stop_reason != 0) outcome_.verdict = Verdict::forecast;
        put_text(outcome_.reason, machine_.text());
        outcome_.sent = go_;
        sender_.reset();
        device_.reset();  // before the report: whoever reads it may begin anew
        write_outcome(report_.get(), outcome_);
        shared_.reported = true;
        report_.reset();
        ::munlockall();
        void_until_ms_ = mono_ms() + kVoidServiceMs;
    }

    SourceEvent next_event() {
        if (!pending_.empty()) {
            const SourceEvent event = pending_.front();
            pending_.erase(pending_.begin());
            return event;
        }
        for (;;) {
            pulse_();
            const std::int64_t now = mono_ms();
            if (now >= machine_.deadline_ms()) return source_event::DeadlinePassed{};
            if (over()) return source_event::DeadlinePassed{};
            const bool runs_on = machine_.state() == SMIG_SOURCE_PASSING;
            const bool in_pass = passing_ && runs_on;
            const bool watching = look_again_ns_ != 0 && runs_on;
            if (shared_.cancel_asked && (in_pass || watching || machine_.state() == SMIG_SOURCE_LANDING))
                return source_event::CancelAsked{};
            if (watching && mono_ns() >= look_again_ns_) return end_watching();
            std::int64_t patience = std::min(machine_.deadline_ms() - now, kPulseMs);
            if (in_pass) {
                if (shared_.switch_asked) return leave_pass();
                const std::uint64_t wait_ns = pacer_.wait_ns(mono_ns());
                if (wait_ns == 0)
                    if (auto event = go_on_passing()) return *event;
                patience = std::min(patience, static_cast<std::int64_t>((wait_ns + 999'999) / 1'000'000));
            }
            polled_.clear();
            port_.add_to(polled_);
            if (channel_.fd() >= 0) polled_.push_back({channel_.fd(), POLLIN, 0});
            if (::poll(polled_.data(), polled_.size(), static_cast<int>(patience)) <= 0) continue;
            pending_ = port_.service();
            if (auto event = receive()) pending_.push_back(*event);
            if (!pending_.empty()) return next_event();
        }
    }

    std::optional<SourceEvent> receive() {
        if (channel_.fd() < 0) return {};
        auto frame = channel_.receive(0);
        if (frame) return event_of(frame.value());
        if (frame.error().remedy == Remedy::retry) return {};
        const bool in_order = channel_.ended_in_order();
        channel_.close();
        if (frame.error().remedy == Remedy::protocol)
            return source_event::Broken{SMIG_REASON_PROTOCOL, frame.error().text};
        return source_event::Lost{in_order, frame.error().text};
    }

    SourceEvent event_of(const Frame& frame) {
        if (frame.type == SMIG_WIRE_LANDED) {
            auto landed = decode_landed(frame.payload);
            if (!landed) return source_event::Broken{SMIG_REASON_PROTOCOL, landed.error().text};
            if (landed.value().footprint_pages > info_.ram_pages ||
                landed.value().vacant_pages > info_.ram_pages)
                return source_event::Broken{SMIG_REASON_REFUSED,
                                            "the landing environment keeps more memory than this guest has"};
            landed_ = landed.value();
            return source_event::Landed{};
        }
        if (frame.type == SMIG_WIRE_READY) {
            go_.ready_ns = mono_ns();
            auto ready = decode_ready(frame.payload);
            if (!ready) return source_event::Broken{SMIG_REASON_PROTOCOL, ready.error().text};
            return source_event::Ready{ready.value()};
        }
        if (frame.type == SMIG_WIRE_FAILED) {
            auto failed = decode_failure(frame.payload);
            if (!failed) return source_event::Broken{SMIG_REASON_PROTOCOL, failed.error().text};
            return source_event::PeerFailed{failed.value().text};
        }
        return source_event::Broken{
            SMIG_REASON_PROTOCOL,
            std::string("the target sent ") + type_name(static_cast<std::uint16_t>(frame.type))};
    }

    StopPlan& plan_;
    SharedState& shared_;
    SourceMachine machine_;
    Pulse pulse_;
    Channel channel_;
    ControlPort port_;
    CallerService callers_;
    Fd report_;
    std::unique_ptr<Device> device_;
    std::unique_ptr<ImageSender> sender_;
    smig_info info_{};
    ImageBitmap image_;
    ImageBitmap to_send_;  // of it, in the stop
    ImageBitmap pass_;     // to be read in this pass
    Pfn next_;             // of them
    bool tracking_ = false;
    bool passing_ = false;
    PassPolicy policy_;
    Pacer pacer_;
    PassSeen seen_;
    SentCounts counts_before_;  // this pass, later the stop
    ForecastSample sample_;     // of a dry run
    std::uint64_t look_again_ns_ = 0;
    std::uint64_t pass_begun_ns_ = 0;
    std::uint64_t first_pass_ns_ = 0;
    std::array<char, SMIG_HANDOVER_LEN> handover_{};
    smig_capture capture_{};
    smig_wire_landed landed_{};
    MoveOutcome outcome_;
    smig_wire_go go_{};
    std::vector<pollfd> polled_;
    std::vector<SourceEvent> pending_;
    std::int64_t void_until_ms_ = 0;
    bool is_clone_ = false;
};

}  // namespace

bool write_outcome(int fd, const MoveOutcome& outcome) {
    return ::write(fd, &outcome, sizeof(outcome)) == static_cast<ssize_t>(sizeof(outcome));
}

int run_stop_process(StopPlan& plan, StopConnection connection, Fd listener, Fd report) {
    return StopProcess(plan, std::move(connection), std::move(listener), std::move(report)).run();
}

}  // namespace smig
