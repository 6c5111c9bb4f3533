// SPDX-License-Identifier: Apache-2.0
#include "agent/source/caller_service.hpp"

#include <poll.h>

#include <algorithm>

#include "agent/wire/codec.hpp"

namespace smig {

namespace {

// The end of the control connection is the clone's sign that RELEASED was heard: let it leave before the NIC
// goes.
constexpr int kFarewellMs = 150;

}  // namespace

bool CallerService::perform(const SourceAction& action, const SourceMachine& machine) {
    smig_wire_verdict verdict{};
    std::ranges::copy(machine.epoch(), verdict.epoch);
    std::ranges::copy(machine.boot_nonce(), verdict.boot_nonce);
    switch (action.what) {
        case SourceDo::answer_go: {
            smig_wire_go go{};
            if (shared_.go_valid) go = shared_.go;
            std::ranges::copy(machine.epoch(), go.epoch);
            std::ranges::copy(machine.boot_nonce(), go.boot_nonce);
            port_.answer(action.caller, SMIG_WIRE_GO, encode(go));
            return true;
        }
        case SourceDo::answer_void:
            port_.answer(action.caller, SMIG_WIRE_VOID, encode(verdict));
            return true;
        case SourceDo::answer_wait:
            port_.answer(action.caller, SMIG_WIRE_WAIT, encode(verdict));
            return true;
        case SourceDo::serve_owed:
            if (auto channel = port_.take(action.caller))
                owed_.serve(action.role, action.afresh, std::move(*channel));
            return true;
        case SourceDo::end_caller:
            port_.end(action.caller);
            return true;
        case SourceDo::retire:
            if (keep_source_) return true;
            ::poll(nullptr, 0, kFarewellMs);
            power_.off();
            return true;
        default:
            return false;
    }
}

}  // namespace smig
