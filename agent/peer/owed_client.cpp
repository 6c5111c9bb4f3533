// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/owed_client.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "agent/base/clock.hpp"
#include "agent/page/pfn.hpp"
#include "agent/wire/owed_codec.hpp"

namespace smig {

namespace {

constexpr std::size_t kPayload = 16 + SMIG_WIRE_MAX_PAGES * (8 + kPageBytes);
constexpr std::int64_t kSendStallMs = 2'000;
constexpr std::int64_t kConnectMs = 1'000;
constexpr std::int64_t kBlindPollMs = 5;  // a device without a descriptor is looked at so often
constexpr smig_wire_owed_role kRoles[] = {SMIG_OWED_DEMAND, SMIG_OWED_PUSH};
// Of one connection, before faults are looked for again, and for one acknowledgement.
constexpr int kTurnFrames = 8;
constexpr int kTurnPushed = 1;
constexpr std::int64_t kNsPerS = 1'000'000'000;

}  // namespace

struct OwedClient::Buffers {
    std::array<smig_fault, SMIG_WIRE_MAX_FETCH> faults;
    std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pfns;
};

OwedClient::OwedClient(OwedPhase phase)
    : phase_(std::move(phase)), machine_(OwedLimits{}), buffers_(std::make_unique<Buffers>()) {
    polled_.reserve(4);
}

OwedClient::~OwedClient() = default;

void OwedClient::raise_priority() {
    ::setpriority(PRIO_PROCESS, 0, -20);
}

void OwedClient::call() {
    perform(machine_.begin(mono_ms()));
}

void OwedClient::await_answer() {
    // Before the guest thaws: it would run, and fault, before whoever answers it.
    raise_priority();
    const std::int64_t until = mono_ms() + kAnswerMs;
    for (std::int64_t left = kAnswerMs; left > 0; left = until - mono_ms()) {
        polled_.clear();
        for (const Link& one : links_)
            if (one.connecting) polled_.push_back({one.connecting.get(), POLLOUT, 0});
        if (polled_.empty()) return;
        ::poll(polled_.data(), polled_.size(), static_cast<int>(left));
        answer_connects();
    }
}

void OwedClient::run() {
    raise_priority();
    later_ms_ = mono_ms() + kLaterMs;
    while (!machine_.over()) {
        if (phase_.pulse) phase_.pulse();
        wait();
        answer_connects();
        read_faults();
        receive(SMIG_OWED_DEMAND);
        if (rest_ns() == 0) {
            rest_.looked();
            receive(SMIG_OWED_PUSH);
        }
        perform(machine_.tick(mono_ms()));
        if (later_ms_ != 0 && mono_ms() >= later_ms_) {
            later_ms_ = 0;
            if (phase_.later) phase_.later();
        }
    }
    (void)phase_.device.owed_status(phase_.tally.status, 0);
    if (later_ms_ != 0 && phase_.later) phase_.later();
}

std::uint64_t OwedClient::rest_ns() const {
    return rest_.left_ns(mono_ns());
}

void OwedClient::wait() {
    polled_.clear();
    const auto rest = static_cast<std::int64_t>(rest_ns());
    std::int64_t due = std::min(machine_.deadline_ms(), mono_ms() + kPulseMs);
    if (later_ms_ != 0) due = std::min(due, later_ms_);
    if (const int fd = phase_.device.fault_fd(); fd >= 0)
        polled_.push_back({fd, POLLIN, 0});
    else
        due = std::min(due, mono_ms() + kBlindPollMs);
    for (const Link& one : links_) {
        if (one.connecting) {
            polled_.push_back({one.connecting.get(), POLLOUT, 0});
            due = std::min(due, one.connect_by_ms);
        }
        const bool silent = rest != 0 && &one == &link(SMIG_OWED_PUSH);
        if (one.channel && !silent) polled_.push_back({one.channel->fd(), POLLIN, 0});
    }
    std::int64_t patience_ns = std::max<std::int64_t>(0, due - mono_ms()) * 1'000'000;
    if (rest != 0) {
        ++phase_.tally.rests;
        patience_ns = std::min(patience_ns, rest);
    }
    const timespec patience{patience_ns / kNsPerS, patience_ns % kNsPerS};
    ::ppoll(polled_.data(), polled_.size(), &patience, nullptr);
}

void OwedClient::perform(const OwedActions& actions) {
    for (const OwedAction& action : actions) perform(action);
}

void OwedClient::perform(const OwedAction& action) {
    switch (action.what) {
        case OwedDo::connect:
            return connect(action.role);
        case OwedDo::send_hello: {
            smig_wire_owed_hello hello{};
            std::ranges::copy(phase_.epoch, hello.epoch);
            std::ranges::copy(phase_.boot_nonce, hello.boot_nonce);
            hello.role = action.role;
            hello.flags = action.afresh ? SMIG_WIRE_OWED_AFRESH : 0;
            return send(action.role, SMIG_WIRE_OWED_HELLO, encode(hello));
        }
        case OwedDo::send_fetch:
            return send(action.role, SMIG_WIRE_FETCH, encode_fetch(action.pfns, action.again));
        case OwedDo::send_taken:
            link(action.role).taken_frames = action.frames;
            return;
        case OwedDo::disconnect:
            ++phase_.tally.reconnections;
            link(action.role) = {};
            return;
        case OwedDo::repeat:
            return repeat();
        case OwedDo::look:
            return look();
    }
}

void OwedClient::connect(smig_wire_owed_role role) {
    auto fd = begin_connect(phase_.local, phase_.remote);
    if (!fd) return perform(machine_.lost(role, mono_ms()));
    link(role).connecting = std::move(fd).value();
    link(role).connect_by_ms = mono_ms() + kConnectMs;
}

void OwedClient::answer_connects() {
    for (const smig_wire_owed_role role : kRoles) {
        Link& one = link(role);
        if (!one.connecting) continue;
        pollfd entry{one.connecting.get(), POLLOUT, 0};
        const bool answered = ::poll(&entry, 1, 0) > 0;
        if (!answered && mono_ms() < one.connect_by_ms) continue;
        if (!answered || !connect_answer(one.connecting.get())) {
            lose(role);
            continue;
        }
        one.channel.emplace(std::move(one.connecting), FrameWriter{}, FrameReader(kPayload), phase_.pulse);
        one.ready = false;
        perform(machine_.connected(role, mono_ms()));
    }
}

void OwedClient::lose(smig_wire_owed_role role) {
    perform(machine_.lost(role, mono_ms()));
}

void OwedClient::send(smig_wire_owed_role role, smig_wire_type type, const Bytes& payload) {
    Link& one = link(role);
    if (one.channel && !one.channel->send(type, {payload}, kSendStallMs)) lose(role);
}

void OwedClient::repeat() {
    smig_owed_status status{};
    if (phase_.device.owed_status(status, SMIG_OWED_REPEAT)) machine_.left(status.left_pages);
    read_faults();
}

void OwedClient::look() {
    smig_owed_status status{};
    if (!phase_.device.owed_status(status, 0)) return;
    machine_.left(status.left_pages);
    if (phase_.tell) phase_.tell(status.left_pages);
}

void OwedClient::read_faults() {
    for (;;) {
        auto got = phase_.device.read_faults(buffers_->faults);
        if (!got || got.value() == 0) return;
        std::vector<std::uint64_t> pfns(got.value());
        for (std::size_t i = 0; i < pfns.size(); ++i) pfns[i] = buffers_->faults.at(i).pfn;
        perform(machine_.faults(pfns, mono_ms()));
        if (got.value() < buffers_->faults.size()) return;
    }
}

void OwedClient::acknowledge(smig_wire_owed_role role) {
    const std::uint64_t frames = std::exchange(link(role).taken_frames, 0);
    if (frames != 0) send(role, SMIG_WIRE_OWED_TAKEN, encode(smig_wire_owed_taken{frames}));
}

void OwedClient::receive(smig_wire_owed_role role) {
    take_frames(role, role == SMIG_OWED_PUSH ? kTurnPushed : kTurnFrames);
    acknowledge(role);
}

void OwedClient::take_frames(smig_wire_owed_role role, int most) {
    for (int frames = 0; frames < most; ++frames) {
        std::optional<Channel>& channel = link(role).channel;
        if (!channel) return;
        auto frame = channel->receive(0);
        if (!frame && frame.error().remedy == Remedy::retry) return;
        if (!frame || !take_in(role, frame.value())) return lose(role);
        if (machine_.over()) return;
    }
}

bool OwedClient::take_in(smig_wire_owed_role role, const Frame& frame) {
    Link& one = link(role);
    if (frame.type == SMIG_WIRE_OWED_READY && !one.ready) {
        auto ready = decode_owed_ready(frame.payload);
        if (!ready) return false;
        phase_.tally.source = ready.value();
        one.ready = true;
        return true;
    }
    return frame.type == SMIG_WIRE_OWED_PAGES && one.ready && install(role, frame.payload);
}

bool OwedClient::install(smig_wire_owed_role role, ByteView payload) {
    std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES>& pfns = buffers_->pfns;
    const auto view = decode_owed_pages(payload, pfns);
    if (!view) return false;
    const std::uint32_t origin = view.value().origin - SMIG_OWED_ASKED;
    static_assert(SMIG_OWED_SPECULATED - SMIG_OWED_ASKED == SMIG_INSTALL_SPECULATED &&
                  SMIG_OWED_PUSHED - SMIG_OWED_ASKED == SMIG_INSTALL_PUSHED);
    const auto with_data = std::span<const std::uint64_t>(pfns).first(view.value().count);
    const auto zeros =
        std::span<const std::uint64_t>(pfns).subspan(view.value().count, view.value().zero_count);
    std::uint64_t left = 1;
    std::uint64_t awaited = 0;
    // A connection that is made anew brings them again.
    if (!install_some(with_data, view.value().data, origin, left, awaited)) return false;
    if (!install_some(zeros, {}, origin | SMIG_INSTALL_ZERO, left, awaited)) return false;
    phase_.tally.arrived[view.value().origin] += with_data.size() + zeros.size();
    phase_.tally.bytes += kFrameHeaderBytes + payload.size();
    const auto all = std::span<const std::uint64_t>(pfns).first(with_data.size() + zeros.size());
    perform(machine_.installed(role, all, left, mono_ms()));
    if (awaited != 0) rest_.served(machine_.waits(), mono_ns());
    return true;
}

Result<void> OwedClient::install_some(std::span<const std::uint64_t> pfns, ByteView data, std::uint32_t flags,
                                      std::uint64_t& left, std::uint64_t& awaited) {
    if (pfns.empty()) return {};
    smig_install install{};
    install.pfns = std::bit_cast<std::uint64_t>(pfns.data());
    install.data = (flags & SMIG_INSTALL_ZERO) != 0 ? 0 : std::bit_cast<std::uint64_t>(data.data());
    install.nr = static_cast<std::uint32_t>(pfns.size());
    if (auto done = phase_.device.install(install, flags); !done) {
        // The last page came by the other connection: there is nothing to install into any more.
        smig_status status{};
        if (!phase_.device.status(status) || status.state != SMIG_STATE_SOURCE) return done;
        left = 0;
        return {};
    }
    phase_.tally.arrived_again += pfns.size() - install.installed;
    left = install.left;
    awaited += install.awaited;
    return {};
}

}  // namespace smig
