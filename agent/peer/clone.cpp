// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/clone.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"
#include "agent/base/random.hpp"
#include "agent/peer/clone_machine.hpp"
#include "agent/peer/owed_client.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/connect.hpp"

namespace smig {

namespace {

constexpr std::size_t kControlPayload = 4200;  // FAILED is the longest frame a control connection carries
constexpr std::int64_t kSendStallMs = 2'000;
// The first SYN may meet a NIC that is not up yet; its retransmission would come after a second.
constexpr std::int64_t kFirstConnectMs = 200;
constexpr std::int64_t kConnectMs = 1'000;
constexpr int kQuickAttempts = 10;
constexpr unsigned kAnnounceGapMs = 20;  // a switch or a neighbour may miss the first

void remark(MoveOutcome& outcome, const std::string& text) {
    std::string all = outcome.remarks;
    put_text(outcome.remarks, all.empty() ? text : all + "; " + text);
}

class Clone {
public:
    explicit Clone(CloneContext& context)
        : context_(context),
          machine_(CloneMachine::take_up(context.at, context.handover.epoch, context.handover.boot_nonce,
                                         CloneLimits{})) {}

    bool run() {
        if (context_.at == CloneAt::fenced) take_on_identity();
        wait(context_.holds.ms_in(machine_.state()));
        feed(clone_event::Woke{});
        while (!machine_.over()) feed(next_event());
        return machine_.state() == SMIG_CLONE_RELEASED;
    }

private:
    void take_on_identity() {
        context_.outcome.woke_ns = mono_ns();
        fill_random(std::span(context_.outcome.drawn));
        if (auto opened = open_flows(); !opened) remark(context_.outcome, opened.error().text);
        if (auto applied = context_.take_on_network(); !applied)
            remark(context_.outcome, applied.error().text);
        context_.outcome.network_ns = mono_ns();
    }

    Result<void> open_flows() {
        const Handover& handover = context_.handover;
        smig_flows flows{};
        flows.nr_flows = 1;
        smig_flow& flow = flows.flows[0];
        flow.family = handover.stay.family;
        std::memcpy(flow.local, handover.stay.bytes.data(), sizeof(flow.local));
        std::memcpy(flow.peer, handover.source_stay.bytes.data(), sizeof(flow.peer));
        flow.nr_ports = 1;
        flow.ports[0] = handover.control_port;
        return context_.device.set_flows(flows);
    }

    void feed(const CloneEvent& first) {
        std::optional<CloneEvent> event = first;
        while (event) {
            const CloneActions actions = machine_.on(*event, mono_ms());
            event.reset();
            for (const CloneDo action : actions)
                if (auto outcome = perform(action)) event = outcome;
        }
    }

    std::optional<CloneEvent> perform(CloneDo action) {
        switch (action) {
            case CloneDo::connect:
                return connect();
            case CloneDo::send_alive:
                return send_alive();
            case CloneDo::disconnect:
                channel_.reset();
                return {};
            case CloneDo::release:
                return release();
            case CloneDo::announce:
                (void)context_.announce(kAnnounceGapMs);
                return {};
            case CloneDo::report:
                context_.outcome.verdict = Verdict::moved;
                context_.report();
                return {};
            case CloneDo::send_released:
                return tell(SMIG_WIRE_RELEASED);
            case CloneDo::send_drained:
                return tell(SMIG_WIRE_DRAINED);
            case CloneDo::fetch_owed:
                return fetch_owed();
            case CloneDo::reset_machine:
                context_.power.reset();
                return {};
            case CloneDo::finish:
                return {};
        }
        return {};
    }

    void set_addresses(SocketAddress& local, SocketAddress& remote) const {
        local.length = to_sockaddr(context_.handover.stay, 0, local.storage, context_.stay_index);
        remote.length = to_sockaddr(context_.handover.source_stay, context_.handover.control_port,
                                    remote.storage, context_.stay_index);
    }

    CloneEvent connect() {
        SocketAddress local;
        SocketAddress remote;
        set_addresses(local, remote);
        const std::int64_t timeout = ++attempts_ <= kQuickAttempts ? kFirstConnectMs : kConnectMs;
        auto fd = connect_from(local, remote, timeout, context_.pulse);
        if (!fd) return clone_event::ConnectFailed{};
        channel_.emplace(std::move(fd).value(), FrameWriter{}, FrameReader(kControlPayload), context_.pulse);
        return clone_event::Connected{};
    }

    std::optional<CloneEvent> send_alive() {
        SMIG_CHECK(channel_);
        smig_wire_alive alive{};
        std::ranges::copy(context_.handover.epoch, alive.epoch);
        std::ranges::copy(context_.handover.boot_nonce, alive.boot_nonce);
        std::ranges::copy(context_.outcome.drawn, alive.drawn);
        if (!channel_->send(SMIG_WIRE_ALIVE, {encode(alive)}, kSendStallMs)) return clone_event::Lost{};
        if (context_.outcome.asked_ns == 0) context_.outcome.asked_ns = mono_ns();
        return {};
    }

    std::optional<CloneEvent> tell(smig_wire_type type) {
        if (!channel_) return clone_event::Lost{};
        smig_wire_verdict verdict{};
        std::ranges::copy(context_.handover.epoch, verdict.epoch);
        std::ranges::copy(context_.handover.boot_nonce, verdict.boot_nonce);
        if (!channel_->send(type, {encode(verdict)}, kSendStallMs)) return clone_event::Lost{};
        return {};
    }

    std::unique_ptr<OwedClient> call_for_owed() {
        OwedPhase phase{context_.device,
                        {},
                        {},
                        context_.handover.epoch,
                        context_.handover.boot_nonce,
                        context_.pulse,
                        context_.outcome.owed,
                        context_.tell_owing,
                        [this] { (void)context_.announce(0); }};
        set_addresses(phase.local, phase.remote);
        auto client = std::make_unique<OwedClient>(std::move(phase));
        client->call();
        return client;
    }

    [[nodiscard]] bool is_owed() {
        smig_owed_status status{};
        return context_.device.owed_status(status, 0).ok() && status.left_pages > 0;
    }

    CloneEvent fetch_owed() {
        if (context_.at == CloneAt::fenced) wait(context_.holds.ms_in(SMIG_CLONE_OWING));
        if (!owed_client_) owed_client_ = call_for_owed();
        owed_client_->run();
        owed_client_.reset();
        context_.outcome.drained_ns = mono_ns();
        return clone_event::Drained{};
    }

    CloneEvent release_failed(const Error& error) {
        remark(context_.outcome, error.text);
        return clone_event::ReleaseFailed{error.text};
    }

    CloneEvent release() {
        context_.outcome.go_ns = context_.outcome.go_ns != 0 ? context_.outcome.go_ns : mono_ns();
        smig_release release{};
        if (!owed_client_ && is_owed()) owed_client_ = call_for_owed();
        if (context_.outcome.fence_open_ns == 0) {
            if (auto opened = context_.device.release(release, SMIG_RELEASE_FENCES_ONLY); !opened)
                return release_failed(opened.error());
            context_.outcome.fence_open_ns = release.fence_open_mono_ns;
            // While tasks still thaw, the networks learn where their packets must go.
            for (const std::string& failure : context_.announce(0)) remark(context_.outcome, failure);
            context_.outcome.announced_ns = mono_ns();
        }
        if (owed_client_) owed_client_->await_answer();
        release = {};
        if (auto released = context_.device.release(release, 0); !released)
            return release_failed(released.error());
        context_.outcome.released_ns = mono_ns();
        for (std::size_t i = 0; i < SMIG_STEP_SLOTS; ++i)
            if (release.clone_us[i] != 0) context_.outcome.clone_us[i] = release.clone_us[i];
        smig_status status{};
        const bool owing = context_.device.status(status).ok() && status.state == SMIG_STATE_OWING;
        return clone_event::Released{owing};
    }

    void wait(std::int64_t ms) {
        const std::int64_t until = mono_ms() + ms;
        for (std::int64_t left = ms; left > 0; left = until - mono_ms()) {
            if (context_.pulse) context_.pulse();
            ::poll(nullptr, 0, static_cast<int>(std::min(left, kPulseMs)));
        }
    }

    CloneEvent next_event() {
        const std::int64_t deadline = machine_.deadline_ms();
        if (!channel_) {
            wait(std::max<std::int64_t>(0, deadline - mono_ms()));
            return clone_event::DeadlinePassed{};
        }
        auto frame = channel_->receive(deadline);
        if (!frame) {
            if (frame.error().remedy == Remedy::retry) return clone_event::DeadlinePassed{};
            return clone_event::Lost{channel_->ended_in_order()};
        }
        return event_of(frame.value());
    }

    CloneEvent event_of(const Frame& frame) {
        const auto id = [](const std::uint8_t(&bytes)[SMIG_WIRE_ID_LEN]) { return std::to_array(bytes); };
        if (frame.type == SMIG_WIRE_GO) {
            if (auto go = decode_go(frame.payload)) {
                if (context_.outcome.go_ns == 0) {
                    context_.outcome.go_ns = mono_ns();
                    context_.outcome.sent = go.value();
                }
                return clone_event::Go{id(go.value().epoch), id(go.value().boot_nonce)};
            }
        } else if (frame.type == SMIG_WIRE_VOID) {
            if (auto verdict = decode_verdict(frame.payload))
                return clone_event::Void{id(verdict.value().epoch), id(verdict.value().boot_nonce)};
        } else if (frame.type == SMIG_WIRE_WAIT) {
            return clone_event::Wait{};
        }
        return clone_event::Lost{};
    }

    CloneContext& context_;
    CloneMachine machine_;
    std::optional<Channel> channel_;
    std::unique_ptr<OwedClient> owed_client_;  // from GO on, if anything is owed
    int attempts_ = 0;
};

}  // namespace

bool run_clone(CloneContext& context) {
    return Clone(context).run();
}

}  // namespace smig
