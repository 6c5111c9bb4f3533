// SPDX-License-Identifier: Apache-2.0
// What the supervisor does about what it sees.  Pure.
#pragma once

#include <cstdint>

namespace smig {

struct Observation {
    bool stop_process_alive = true;
    bool overdue = false;            // it has not spoken when it said it would, and not since that was seen
    std::uint32_t device_state = 0;  // enum smig_state; 0: the module does not answer
    std::int64_t clone_seen_ms = 0;  // for how long the module has been saying CLONE or OWING
    bool woke_as_clone = false;      // the stop process got as far as to say so
    bool jump_sent = false;          // so that a clone may ask
    bool reported = false;           // the agent knows how it ended
};

enum class Supervision {
    watch,
    kill,           // the stop process hangs; then watch on
    leave,          // all is over
    report_leave,   // tell the agent that the stop process died, the guest runs here
    report_refuse,  // the same; then answer VOID to a clone that may ask
    refuse,         // only that
    give,           // adopt GIVEN and answer GO
    be_clone,       // adopt CLONE or OWING and do the clone's part
    tell_moved,     // the guest was released here: tell the agent and the source
};

// Before commit a hanging stop process is killed, for its death undoes the stop.  In GIVEN, CLONE and OWING
// the module keeps the state over a death, so killing is as safe there; a clone just woken gets time to speak
// first.  When the agent knows how it ended, what the module says may be about another move already: nobody
// is killed any more, and nothing of it adopted.
[[nodiscard]] Supervision supervise(const Observation& seen);

}  // namespace smig
