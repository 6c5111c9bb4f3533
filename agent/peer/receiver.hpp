// SPDX-License-Identifier: Apache-2.0
// The target's side, carried out: listens on one address and serves one source at a time, others hear BUSY.
//
// Each session has its own open device, closed when the session ends, whereupon the module gives all memory
// back.  A session that succeeds never ends: the jump replaces the kernel under it.  Holding memory takes
// long, so that is done before a source calls.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "agent/base/result.hpp"
#include "agent/device/device.hpp"
#include "agent/network/identity.hpp"
#include "agent/peer/machine.hpp"
#include "agent/policy/hold.hpp"
#include "agent/wire/connect.hpp"

namespace smig {

struct ReceiverOptions {
    SocketAddress listen;
    std::string listen_text;  // what a person reads of it
    TargetLimits limits;
    Holds holds;
    std::uint64_t reserve_pages = 0;  // kept free for the landing environment; 0: the module's default
    OpenDevice open_device;
    // Every reason to refuse this source; empty: it fits.
    std::function<std::vector<std::string>(const smig_info& info, const std::string& source_json)> check;
    // The hand-over page for the clone.
    std::function<Result<std::string>(const IpAddress& local, const IpAddress& source,
                                      std::uint16_t control_port, const WireId& epoch,
                                      const WireId& boot_nonce)>
        handover;
    std::function<void(const std::string&)> log;  // a line
};

// Serves for ever.  Error (refused): it cannot listen there.
Result<void> run_receiver(const ReceiverOptions& options);

}  // namespace smig
