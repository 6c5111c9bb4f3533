// SPDX-License-Identifier: Apache-2.0
#include "agent/source/stop_process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "agent/base/clock.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/source/caller_service.hpp"
#include "agent/source/control_port.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/source/locked_memory.hpp"
#include "agent/source/owed_server.hpp"
#include "agent/source/pass_runner.hpp"
#include "agent/source/target_frames.hpp"

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
// What a process touches just before the stop is hot: it would be asked for at once.  So much of it goes in
// the stop as the link takes in a time that a person does not notice.
constexpr double kHotSendS = 0.025;
constexpr std::uint64_t kLeastHotPages = 384;
constexpr std::int64_t kHotMs = 50;               // in which it shows, and then while memory is reserved
constexpr std::uint64_t kTellingBytes = 4 << 20;  // fewer, and buffers took them, not the link

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
          owed_(plan.transfer, PushWindow(2 * plan.land.clock_error_ns, 0)),
          callers_(port_, shared_, *plan.power, plan.keep_source, owed_),
          report_(std::move(report)) {}

    int run() {
        if (auto prepared = get_ready(); !prepared)
            feed(source_event::Broken{SMIG_REASON_DEVICE, prepared.error().text});
        else
            feed(source_event::ClocksSampled{});
        while (!over()) feed(next_event());
        // Whoever may have asked has been answered.
        if (!is_clone_) shared_.jump_sent = false;
        return 0;
    }

    Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) override {
        return channel_.send(type, pieces, kStallMs);
    }

private:
    void expect_within(std::int64_t ms) { shared_.heard_by_ms = mono_ms() + ms; }

    // Everything that is needed while the guest is stopped, but for the list of what is owed.
    Result<void> get_ready() {
        pulse_();
        // What a slow pass sends is written again meanwhile: a short one costs the guest no more, and ends.
        (void)::setpriority(PRIO_PROCESS, 0, plan_.transfer.nice);
        if (auto locked = lock_memory(); !locked) return locked;
        auto opened = plan_.open_device();
        if (!opened) return opened.error();
        device_ = std::move(opened).value();
        if (auto told = device_->info(info_); !told) return told;
        for (ImageBitmap* bitmap : {&image_, &to_send_}) *bitmap = ImageBitmap(Pfn{info_.top_pfn});
        sender_ = std::make_unique<ImageSender>(*device_, *this, plan_.transfer.compress);
        passes_ = std::make_unique<PassRunner>(
            PassRunner::Parts{plan_.transfer, shared_, *device_, *sender_,
                              [this] { expect_within(kDeviceMs); }, pulse_, 2 * plan_.land.clock_error_ns},
            Pfn{info_.top_pfn});
        polled_.reserve(16);
        if (auto reserved = reserve_heap(); !reserved) return reserved;
        const std::int64_t deadline = mono_ms() + kSupervisorMs;
        while (!shared_.supervisor_ready) {
            if (mono_ms() > deadline) return Error{Remedy::fatal, "the supervisor did not start"};
            ::poll(nullptr, 0, 5);
        }
        return {};
    }

    // Whoever asks for a cancel asks the agent, and hears from it how the move ended: nothing goes on without
    // it.
    [[nodiscard]] bool cancelled() const {
        pollfd agent{report_.get(), 0, 0};
        return shared_.cancel_asked || (::poll(&agent, 1, 0) > 0 && (agent.revents & POLLERR) != 0);
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
                return taken(passes_->begin());
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
        std::uint32_t flags = 0;
        prepare.spare_pages = landed_.vacant_pages;
        prepare.extra_shadow_pages = extra_shadow_pages;
        if (vacant != nullptr) {
            if (traits_of(plan_.transfer.mode).passes) flags = SMIG_PREPARE_SPARE;
            // What a target says may lie beyond this guest's memory.
            prepare.avoid_start = std::min<std::uint64_t>(landed_.kernel_start, info_.top_pfn);
            prepare.avoid_pages =
                std::min<std::uint64_t>(landed_.kernel_pages, info_.top_pfn - prepare.avoid_start);
            prepare.vacant_bitmap = std::bit_cast<std::uint64_t>(vacant->words().data());
            prepare.vacant_bitmap_bytes = vacant->bytes();
        }
        auto reserved = device_->prepare(prepare, flags);
        pulse_();
        return reserved;
    }

    Result<void> begin_move() {
        if (auto begun = device_->begin(SMIG_ROLE_SOURCE); !begun) return begun;
        smig_flows allowed = flows();
        if (auto set = device_->set_flows(allowed); !set) return set;
        if (auto mapped = sender_->get_ready(Pfn{info_.top_pfn}); !mapped) return mapped;
        // No pass has begun: its bitmap is free.
        if (auto reserved = reserve_memory(0, &passes_->frames()); !reserved) return reserved;
        return sender_->send_vacant(passes_->frames());
    }

    SourceEvent prepare() {
        if (auto begun = begin_move(); !begun) return sending_failed(begun.error());
        if (!traits_of(plan_.transfer.mode).passes) return source_event::Prepared{false};
        if (cancelled()) return source_event::CancelAsked{};
        if (auto followed = passes_->follow(); !followed)
            return source_event::Broken{SMIG_REASON_DEVICE,
                                        followed.error().text + "; --mode stop-copy needs it not"};
        return source_event::Prepared{true};
    }

    // What a step of the passes came to.
    std::optional<SourceEvent> taken(const PassRunner::Step& step) {
        return step ? step.value() : sending_failed(step.error());
    }

    // What is anonymous and lacking stays on the source; only for this move, and anything that undoes it
    // undoes this.
    Result<void> owe() {
        if (!passes_->leaves_owed()) return {};
        expect_within(kDeviceMs);
        smig_owe owe{};
        if (auto owed = device_->owe(owe); !owed) {
            return Error{owed.error().remedy, owed.error().text + "; --mode precopy needs it not"};
        }
        owes_ = true;
        pulse_();
        return {};
    }

    // Marks anew and lets the guest touch what is hot; how many pages of that may go in the stop.
    std::uint64_t let_hot_pages_show() {
        smig_owe owe{};
        if (!owes_) return 0;
        expect_within(kDeviceMs);
        const bool marked = device_->owe(owe).ok();
        pulse_();
        if (!marked) return 0;
        ::poll(nullptr, 0, static_cast<int>(kHotMs));
        const double room = passes_->link_bytes_per_s() * kHotSendS / kPageBytes;
        return std::max(kLeastHotPages, static_cast<std::uint64_t>(room));
    }

    // Both returns of CAPTURE come through here.
    Result<void> capture(std::uint64_t hot_pages) {
        capture_ = {};
        capture_.hot_pages = hot_pages;
        capture_.handover = std::bit_cast<std::uint64_t>(handover_.data());
        capture_.image_bitmap = std::bit_cast<std::uint64_t>(image_.words().data());
        capture_.image_bitmap_bytes = image_.bytes();
        capture_.send_bitmap = std::bit_cast<std::uint64_t>(to_send_.words().data());
        capture_.send_bitmap_bytes = to_send_.bytes();
        outcome_.stop_begun_ns = mono_ns();
        expect_within(kDeviceMs);
        std::uint32_t flags = passes_->following() && plan_.transfer.verify ? SMIG_CAPTURE_VERIFY : 0;
        if (owes_) flags |= SMIG_CAPTURE_OWE;
        return device_->capture(capture_, flags);
    }

    SourceEvent stop() {
        // A target that has given up meanwhile need not cost the guest a stop.
        if (auto early = receive()) return *early;
        passes_->note(go_);
        put_text(outcome_.explanation, passes_->explanation());
        Result<void> begun;
        for (int attempt = 0; attempt < kCaptureAttempts; ++attempt) {
            // What is owed cannot be swapped out to make room, so that comes first.
            begun = reserve_memory(kMoreShadowPages * static_cast<std::uint64_t>(attempt), nullptr);
            if (!begun) break;
            // A capture that failed has unmarked all of it.
            begun = owe();
            if (!begun) break;
            const std::uint64_t hot_pages = let_hot_pages_show();
            // The guest has changed more memory since, and the stop may have to copy it.
            if (owes_) begun = reserve_memory(0, nullptr);
            if (!begun) break;
            if (cancelled()) return source_event::StopFailed{"cancelled"};
            begun = capture(hot_pages);
            if (begun || begun.error().remedy != Remedy::retry) break;
        }
        pulse_();
        if (!begun) return source_event::StopFailed{begun.error().text};
        if (capture_.role == SMIG_ROLE_TARGET) {
            note_clone(outcome_, capture_);
            wake_as_clone();
            return source_event::DeadlinePassed{};  // says nothing to the machine, which is over
        }
        if (cancelled()) {
            if (!device_->thaw()) device_.reset();
            return source_event::StopFailed{"cancelled"};
        }
        note_source(go_, capture_);
        go_.captured_ns = mono_ns();
        shared_.owed_pages = capture_.owed_pages;
        return source_event::Stopped{capture_.owed_pages > 0};
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
                             tell_agent(report_.get(), outcome_, shared_);
                         },
                         [this](std::uint64_t left) {
                             shared_.state = SMIG_CLONE_OWING;
                             shared_.owed_left = left;
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
        const SentCounts counts = sender_->counts() - passes_->counts_before();
        go_.data_pages = counts.data_pages;
        go_.zero_pages = counts.zero_pages;
        go_.payload_bytes = counts.payload_bytes;
        go_.read_ns = counts.read_ns;
        go_.repeated_pages = sender_->repeated_pages();
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
        if (passes_) outcome_.forecast = passes_->forecast_made();
        if (outcome_.forecast.stop_reason != 0) outcome_.verdict = Verdict::forecast;
        put_text(outcome_.reason, machine_.text());
        outcome_.sent = go_;
        passes_.reset();
        sender_.reset();
        device_.reset();  // before the report: whoever reads it may begin anew
        tell_agent(report_.get(), outcome_, shared_);
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
            const bool in_pass = runs_on && passes_->under_way();
            const bool watching = runs_on && passes_->look_again_ns() != 0;
            if ((in_pass || watching || machine_.state() == SMIG_SOURCE_LANDING) && cancelled())
                return source_event::CancelAsked{};
            if (watching && mono_ns() >= passes_->look_again_ns()) return passes_->end_watching();
            std::int64_t patience = std::min({machine_.deadline_ms() - now, kPulseMs, serve_owed()});
            if (in_pass) {
                if (shared_.switch_asked)
                    if (auto event = taken(passes_->leave())) return *event;
                const std::uint64_t wait_ns = passes_->wait_ns();
                if (wait_ns == 0)
                    if (auto event = taken(passes_->go_on())) return *event;
                patience = std::min(patience, static_cast<std::int64_t>((wait_ns + 999'999) / 1'000'000));
            }
            polled_.clear();
            port_.add_to(polled_);
            owed_.add_to(polled_);
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
        if (frame.type == SMIG_WIRE_READY) go_.ready_ns = mono_ns();
        return event_of_target(frame, info_.ram_pages, landed_);
    }

    // What the link takes: in the passes the guest had the processor as well, in the stop it had not.
    double link_bytes_per_s() const {
        const auto took_ns = static_cast<double>(go_.ready_ns - go_.captured_ns);
        const bool enough = took_ns > 0 && go_.payload_bytes >= kTellingBytes;
        const double in_stop = enough ? static_cast<double>(go_.payload_bytes) * 1e9 / took_ns : 0;
        const double in_passes = passes_->link_bytes_per_s();
        return plan_.transfer.bandwidth_bytes_per_s != 0 ? in_passes : std::max(in_passes, in_stop);
    }

    Result<void> list_owed() {
        expect_within(kDeviceMs);
        return owed_.list(*device_,
                          {shared_.owed_pages, Pfn{info_.top_pfn}, &sender_->sent(), link_bytes_per_s()});
    }

    // What is owed is listed while the clone wakes, and served once GO is on its way; how long there is
    // nothing to do about it (ms).
    std::int64_t serve_owed() {
        const bool given = machine_.state() == SMIG_SOURCE_GIVEN || machine_.state() == SMIG_SOURCE_OWING;
        if (shared_.owed_pages == 0 || (!given && machine_.state() != SMIG_SOURCE_AWAITING_ALIVE))
            return kNever;
        if (!owed_.begun()) return list_owed() ? 0 : kPulseMs;
        return given ? owed_.service() : kNever;
    }

    StopPlan& plan_;
    SharedState& shared_;
    SourceMachine machine_;
    Pulse pulse_;
    Channel channel_;
    ControlPort port_;
    OwedServer owed_;
    CallerService callers_;
    Fd report_;
    std::unique_ptr<Device> device_;
    std::unique_ptr<ImageSender> sender_;
    std::unique_ptr<PassRunner> passes_;
    smig_info info_{};
    ImageBitmap image_;
    ImageBitmap to_send_;  // of it, in the stop
    bool owes_ = false;
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

void tell_agent(int fd, const MoveOutcome& outcome, SharedState& shared) {
    [[maybe_unused]] const ssize_t written = ::write(fd, &outcome, sizeof(outcome));
    shared.reported = true;
    ::signal(SIGTERM, SIG_DFL);
}

int run_stop_process(StopPlan& plan, StopConnection connection, Fd listener, Fd report) {
    return StopProcess(plan, std::move(connection), std::move(listener), std::move(report)).run();
}

}  // namespace smig
