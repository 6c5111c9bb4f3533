// SPDX-License-Identifier: Apache-2.0
// Serves owed pages after GO: the module's list, READ, and the two connections that the clone opens.  For the
// stop process and for a supervisor that took over.  Thread: one; nothing waits here longer than a send.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "agent/device/device.hpp"
#include "agent/page/image_bitmap.hpp"
#include "agent/policy/transfer.hpp"
#include "agent/source/owed_dispatch.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

class OwedServer {
public:
    OwedServer(const TransferOptions& transfer, const PushWindow& window);
    ~OwedServer();

    // What the capture and the passes have shown.
    struct Known {
        std::uint64_t pages = 0;                   // that are owed
        Pfn top;                                   // frames are below it
        const ImageBitmap* sent_before = nullptr;  // frames that a pass has sent; null: nobody knows
        double bytes_per_s = 0;                    // of the link; 0: nobody knows
    };
    // The guest is captured: reads a part of the module's list; to be called until begun(), when it has all
    // of it.  The device must outlive every service().  Error: the module's; may be called again.
    Result<void> list(Device& device, const Known& known);
    [[nodiscard]] bool begun() const { return device_ != nullptr; }

    // OWED_HELLO has come on it.
    void serve(smig_wire_owed_role role, bool afresh, Channel channel);
    void add_to(std::vector<pollfd>& entries) const;
    // Receives what is there and sends what may be sent; how long nothing more is to do without a reason to
    // wake up (ms).
    std::int64_t service();
    [[nodiscard]] std::uint64_t left() const { return dispatch_.left(); }

private:
    struct Buffers;
    struct Link {
        std::optional<Channel> channel;
        bool ready_sent = false;
    };

    Link& link(smig_wire_owed_role role) { return role == SMIG_OWED_DEMAND ? demand_ : push_; }
    void drop(smig_wire_owed_role role);
    void receive(smig_wire_owed_role role);
    [[nodiscard]] bool take_in(smig_wire_owed_role role, const Frame& frame);
    // False: nothing was sent.
    bool send_next(smig_wire_owed_role role);
    bool greet(smig_wire_owed_role role);
    // The frame's bytes.
    Result<std::uint64_t> send_batch(Channel& channel, const OwedBatch& batch);

    OwedIndex index_;
    OwedDispatch dispatch_;
    std::int64_t push_after_ms_;
    std::int64_t push_from_ms_ = 0;
    std::unique_ptr<Buffers> buffers_;
    Device* device_ = nullptr;
    std::uint64_t sent_before_ = 0;
    std::uint64_t mean_run_x100_ = 0;
    std::int64_t unreadable_until_ms_ = 0;
    Link demand_;
    Link push_;
};

}  // namespace smig
