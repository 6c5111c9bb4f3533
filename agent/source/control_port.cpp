// SPDX-License-Identifier: Apache-2.0
#include "agent/source/control_port.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "agent/base/clock.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/owed_codec.hpp"

namespace smig {

namespace {

constexpr std::size_t kControlPayload = 4200;  // FAILED is the longest frame a control connection carries
constexpr std::int64_t kSilenceMs = 60'000;
constexpr std::int64_t kAnswerMs = 1'000;

}  // namespace

ControlPort::ControlPort(Fd listener, Pulse pulse)
    : listener_(std::move(listener)), pulse_(std::move(pulse)) {
    callers_.reserve(kMostCallers + 1);
}

void ControlPort::add_to(std::vector<pollfd>& entries) const {
    entries.push_back({listener_.get(), POLLIN, 0});
    for (const Caller& caller : callers_) entries.push_back({caller.channel.fd(), POLLIN, 0});
}

void ControlPort::accept_all() {
    for (;;) {
        Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) return;
        if (callers_.size() == kMostCallers) callers_.erase(callers_.begin());
        callers_.push_back({next_number_++,
                            Channel(std::move(fd), FrameWriter{}, FrameReader(kControlPayload), pulse_),
                            mono_ms() + kSilenceMs});
    }
}

bool ControlPort::receive(Caller& caller, std::vector<SourceEvent>& events) {
    for (;;) {
        auto frame = caller.channel.receive(0);
        if (!frame) return frame.error().remedy == Remedy::retry && mono_ms() < caller.silent_by_ms;
        caller.silent_by_ms = mono_ms() + kSilenceMs;
        if (frame.value().type == SMIG_WIRE_ALIVE) {
            auto alive = decode_alive(frame.value().payload);
            if (!alive) return false;
            events.push_back(source_event::Alive{caller.number, std::to_array(alive.value().epoch),
                                                 std::to_array(alive.value().boot_nonce)});
        } else if (frame.value().type == SMIG_WIRE_RELEASED) {
            auto released = decode_verdict(frame.value().payload);
            if (!released) return false;
            events.push_back(source_event::Released{caller.number, std::to_array(released.value().epoch),
                                                    std::to_array(released.value().boot_nonce)});
        } else if (frame.value().type == SMIG_WIRE_DRAINED) {
            auto drained = decode_verdict(frame.value().payload);
            if (!drained) return false;
            events.push_back(source_event::Drained{caller.number, std::to_array(drained.value().epoch),
                                                   std::to_array(drained.value().boot_nonce)});
        } else if (frame.value().type == SMIG_WIRE_OWED_HELLO) {
            auto hello = decode_owed_hello(frame.value().payload);
            if (!hello) return false;
            events.push_back(source_event::OwedCalled{caller.number, std::to_array(hello.value().epoch),
                                                      std::to_array(hello.value().boot_nonce),
                                                      static_cast<smig_wire_owed_role>(hello.value().role),
                                                      hello.value().flags == SMIG_WIRE_OWED_AFRESH});
            // What follows is for whoever takes this connection.
            return true;
        } else {
            return false;
        }
    }
}

std::vector<SourceEvent> ControlPort::service() {
    accept_all();
    std::vector<SourceEvent> events;
    std::erase_if(callers_, [&](Caller& caller) { return !receive(caller, events); });
    return events;
}

ControlPort::Caller* ControlPort::find(int number) {
    const auto found = std::ranges::find(callers_, number, &Caller::number);
    return found == callers_.end() ? nullptr : &*found;
}

void ControlPort::answer(int caller, smig_wire_type type, ByteView payload) {
    Caller* known = find(caller);
    if (known != nullptr && !known->channel.send(type, {payload}, kAnswerMs))
        std::erase_if(callers_, [&](const Caller& one) { return one.number == caller; });
}

std::optional<Channel> ControlPort::take(int caller) {
    Caller* known = find(caller);
    if (known == nullptr) return {};
    std::optional<Channel> channel(std::move(known->channel));
    std::erase_if(callers_, [&](const Caller& one) { return one.number == caller; });
    return channel;
}

void ControlPort::end(int caller) {
    Caller* known = find(caller);
    if (known != nullptr) ::shutdown(known->channel.fd(), SHUT_WR);
}

}  // namespace smig
