// SPDX-License-Identifier: Apache-2.0
// The clone's owed phase, carried out: faults from the module, fetches to the source, pages into the module,
// until nothing is missing.  The guest runs meanwhile; this process waits for none of its pages, for it is
// never owed itself.  Thread: one.
#pragma once

#include <poll.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "agent/device/device.hpp"
#include "agent/peer/owed_machine.hpp"
#include "agent/policy/push_rest.hpp"
#include "agent/report/outcome.hpp"
#include "agent/wire/channel.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/connect.hpp"

namespace smig {

struct OwedPhase {
    Device& device;  // in state CLONE until run(), then OWING
    SocketAddress local;
    SocketAddress remote;
    WireId epoch{};
    WireId boot_nonce{};
    Pulse pulse;
    OwedTally& tally;                              // filled on
    std::function<void(std::uint64_t left)> tell;  // now and then; may be empty
    std::function<void()>
        later;  // done once, kLaterMs after the beginning, when the first faults are answered
};

class OwedClient {
public:
    explicit OwedClient(OwedPhase phase);
    ~OwedClient();

    // Calls the source; does not wait for it.
    void call();
    // Waits a little for it to answer: a fault that finds connections open waits for its page alone.
    void await_answer();
    // After call().  Returns when nothing is owed.
    void run();

    static constexpr std::int64_t kLaterMs = 20;
    static constexpr std::int64_t kAnswerMs = 20;  // at most, in await_answer()

private:
    struct Buffers;
    struct Link {
        Fd connecting;
        std::int64_t connect_by_ms = 0;
        std::optional<Channel> channel;
        bool ready = false;              // OWED_READY has come
        std::uint64_t taken_frames = 0;  // to be acknowledged; 0: all that came is
    };

    // All that waits for a page waits for this process; it must not wait for those that do not.
    static void raise_priority();
    Link& link(smig_wire_owed_role role) { return links_.at(role == SMIG_OWED_DEMAND ? 0 : 1); }
    void perform(const OwedActions& actions);
    void perform(const OwedAction& action);
    void connect(smig_wire_owed_role role);
    void send(smig_wire_owed_role role, smig_wire_type type, const Bytes& payload);
    void lose(smig_wire_owed_role role);
    void repeat();
    void look();
    void wait();
    [[nodiscard]] std::uint64_t rest_ns() const;
    void answer_connects();
    void read_faults();
    void receive(smig_wire_owed_role role);
    void take_frames(smig_wire_owed_role role, int most);
    void acknowledge(smig_wire_owed_role role);
    [[nodiscard]] bool take_in(smig_wire_owed_role role, const Frame& frame);
    [[nodiscard]] bool install(smig_wire_owed_role role, ByteView payload);
    Result<void> install_some(std::span<const std::uint64_t> pfns, ByteView data, std::uint32_t flags,
                              std::uint64_t& left, std::uint64_t& awaited);

    OwedPhase phase_;
    OwedMachine machine_;
    std::array<Link, 2> links_;
    std::unique_ptr<Buffers> buffers_;
    std::vector<pollfd> polled_;
    std::int64_t later_ms_ = 0;
    PushRest rest_;
};

}  // namespace smig
