// SPDX-License-Identifier: Apache-2.0
// A clock that a test turns, and connections that behave like TCP between two machines: in order, until
// something is cut. What travels are the bytes of real frames.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "agent/wire/frame.hpp"

namespace smig::sim {

// Time and chance of one run.
class Timeline {
public:
    explicit Timeline(std::uint64_t seed) : random_(seed) {}

    [[nodiscard]] std::int64_t now() const { return now_; }
    void after(std::int64_t delay_ms, std::function<void()> what) {
        queue_.emplace(std::pair{now_ + delay_ms, ++order_}, std::move(what));
    }
    // Does the next thing; false: nothing is left, or it lies beyond `until`.
    bool step(std::int64_t until) {
        if (queue_.empty() || queue_.begin()->first.first > until) return false;
        now_ = queue_.begin()->first.first;
        auto what = std::move(queue_.begin()->second);
        queue_.erase(queue_.begin());
        what();
        return true;
    }
    // 0 … below - 1.
    std::int64_t pick(std::int64_t below) {
        return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(below));
    }
    bool chance(double probability) {
        return static_cast<double>(random_() % 1'000'000) < probability * 1'000'000;
    }

private:
    std::mt19937_64 random_;
    std::int64_t now_ = 0;
    std::uint64_t order_ = 0;
    std::map<std::pair<std::int64_t, std::uint64_t>, std::function<void()>> queue_;
};

// The wire between the two machines.
struct Wire {
    bool up = true;
    double corrupt = 0;  // chance that a frame loses a bit
};

inline constexpr std::int64_t kGivesUpMs = 8'000;  // TCP_USER_TIMEOUT and keepalive of the real sockets

class Connection : public std::enable_shared_from_this<Connection> {
public:
    struct End {
        std::function<void(const Frame&)> on_frame;
        std::function<void(const std::string&)> on_garbage;
        std::function<void(bool in_order)> on_lost;
    };

    Connection(Timeline& time, Wire& wire, std::size_t most_payload)
        : time_(time), wire_(wire), ends_{State(most_payload), State(most_payload)} {}

    void attach(int side, End end) { ends_[index(side)].callbacks = std::move(end); }
    [[nodiscard]] bool open(int side) const { return ends_[index(side)].open; }

    // The frame's checksum.
    std::uint64_t send(int side, smig_wire_type type, ByteView payload) {
        State& own = ends_[index(side)];
        const SealedHeader header = own.writer.seal(type, std::span(&payload, 1));
        Bytes bytes(kFrameHeaderBytes + payload.size());
        std::ranges::copy(header.bytes, bytes.begin());
        std::ranges::copy(payload, bytes.begin() + kFrameHeaderBytes);
        if (time_.chance(wire_.corrupt))
            bytes[static_cast<std::size_t>(time_.pick(static_cast<std::int64_t>(bytes.size())))] ^=
                std::byte{1};
        if (own.open) deliver(1 - side, [this, side, bytes] { arrive(1 - side, bytes); });
        return header.checksum;
    }
    // FIN: the process closed the socket or died, its kernel lives.
    void close(int side) {
        if (!std::exchange(ends_[index(side)].open, false)) return;
        deliver(1 - side, [this, side] { lose(1 - side, true); });
    }
    // RST, at some time.
    void reset(int side) {
        if (!std::exchange(ends_[index(side)].open, false)) return;
        deliver(1 - side, [this, side] { lose(1 - side, false); });
    }
    // The machine is gone: nothing is ever heard.
    void vanish(int side) {
        if (!std::exchange(ends_[index(side)].open, false)) return;
        time_.after(kGivesUpMs, [self = shared_from_this(), side] { self->lose(1 - side, false); });
    }

private:
    struct State {
        explicit State(std::size_t most_payload) : reader(most_payload) {}
        End callbacks;
        FrameWriter writer;
        FrameReader reader;
        bool open = true;
        std::int64_t arrives = 0;
    };
    static std::size_t index(int side) { return static_cast<std::size_t>(side); }

    void deliver(int side, const std::function<void()>& what) {
        State& end = ends_[index(side)];
        end.arrives = std::max(end.arrives, time_.now() + 1 + time_.pick(20));
        time_.after(end.arrives - time_.now(), [self = shared_from_this(), what, since = time_.now(), side] {
            self->attempt(side, what, since);
        });
    }
    // What meets a cut wire is sent again until both kernels give up.
    void attempt(int side, const std::function<void()>& what, std::int64_t since) {
        if (wire_.up) return what();
        if (time_.now() - since > kGivesUpMs) {
            lose(side, false);
            lose(1 - side, false);
            return;
        }
        State& end = ends_[index(side)];
        end.arrives = std::max(end.arrives, time_.now() + 100);
        time_.after(end.arrives - time_.now(),
                    [self = shared_from_this(), what, since, side] { self->attempt(side, what, since); });
    }
    void lose(int side, bool in_order) {
        State& end = ends_[index(side)];
        if (std::exchange(end.open, false) && end.callbacks.on_lost) end.callbacks.on_lost(in_order);
    }
    void arrive(int side, const Bytes& bytes) {
        State& end = ends_[index(side)];
        ByteView left(bytes);
        while (end.open && !left.empty()) {
            const auto place = end.reader.wanted();
            const std::size_t count = std::min(place.size(), left.size());
            std::ranges::copy(left.first(count), place.begin());
            left = left.subspan(count);
            const auto complete = end.reader.took(count);
            if (!complete) {
                if (end.callbacks.on_garbage) end.callbacks.on_garbage(complete.error().text);
                return;
            }
            if (!complete.value()) continue;
            if (end.callbacks.on_frame) end.callbacks.on_frame(end.reader.frame());
            end.reader.next();
        }
    }

    Timeline& time_;
    Wire& wire_;
    std::array<State, 2> ends_;
};

}  // namespace smig::sim
