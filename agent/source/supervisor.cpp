// SPDX-License-Identifier: Apache-2.0
#include "agent/source/supervisor.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/source/caller_service.hpp"
#include "agent/source/control_port.hpp"
#include "agent/source/locked_memory.hpp"
#include "agent/source/supervision.hpp"

namespace smig {

namespace {

constexpr int kWatchMs = 200;
constexpr int kUndoingMs = 20;
// The whole VM may have stood still, this process with it: the other gets so long to speak.
constexpr std::int64_t kSecondLookMs = 2'000;
constexpr std::int64_t kVoidServiceMs = 600'000;

class Supervisor {
public:
    Supervisor(StopPlan& plan, Fd stop_process, Fd listener, Fd report)
        : plan_(plan),
          shared_(*plan.shared),
          stop_process_(std::move(stop_process)),
          listener_(std::move(listener)),
          report_(std::move(report)) {}

    int run() {
        auto locked = lock_memory();
        auto opened = plan_.open_device();
        if (!locked || !opened || !opened.value()->exempt()) return 1;
        device_ = std::move(opened).value();
        shared_.supervisor_ready = true;
        for (;;) {
            switch (supervise(look())) {
                case Supervision::watch:
                    break;
                case Supervision::kill:
                    ::syscall(SYS_pidfd_send_signal, stop_process_.get(), SIGKILL, nullptr, 0);
                    ::poll(nullptr, 0, kWatchMs);
                    break;
                case Supervision::leave:
                    return 0;
                case Supervision::report_leave:
                    report_death();
                    return 0;
                case Supervision::report_refuse:
                    report_death();
                    [[fallthrough]];
                case Supervision::refuse:
                    serve(SMIG_SOURCE_ROLLED_BACK);
                    return 0;
                case Supervision::give:
                    if (device_->begin(SMIG_ROLE_SOURCE)) serve(SMIG_SOURCE_GIVEN);
                    break;
                case Supervision::be_clone:
                    if (!device_->begin(SMIG_ROLE_TARGET)) break;
                    be_clone(owes() ? CloneAt::owing : CloneAt::fenced);
                    return 0;
                case Supervision::tell_moved:
                    be_clone(CloneAt::released);
                    return 0;
            }
        }
    }

private:
    Observation look() {
        pollfd entry{stop_process_.get(), POLLIN, 0};
        if (alive_ && ::poll(&entry, 1, kWatchMs) > 0) alive_ = false;
        if (!alive_) ::poll(nullptr, 0, kUndoingMs);
        smig_status status{};
        Observation seen;
        seen.stop_process_alive = alive_;
        // First: in the stop this process stands still, and what it has seen before it wakes up is old.
        const std::int64_t now = mono_ms();
        if (device_->status(status)) seen.device_state = status.state;
        const bool is_clone = seen.device_state == SMIG_STATE_CLONE || seen.device_state == SMIG_STATE_OWING;
        // A clone's clock has jumped over the whole stop.
        if (!is_clone || !was_clone_) clone_since_ms_ = mono_ms();
        was_clone_ = is_clone;
        seen.clone_seen_ms = now - clone_since_ms_;
        const bool late = now > shared_.heard_by_ms;
        if (late && !was_late_) late_since_ms_ = now;
        was_late_ = late;
        seen.overdue = late && now - late_since_ms_ >= kSecondLookMs;
        seen.woke_as_clone = shared_.handover_length != 0;
        seen.jump_sent = shared_.jump_sent;
        seen.reported = shared_.reported;
        // Nothing is lost with this process any more.
        if (seen.reported) ::signal(SIGTERM, SIG_DFL);
        return seen;
    }

    void report_death() {
        MoveOutcome outcome;
        put_text(outcome.reason, std::string("the stop process died (") +
                                     state_name(static_cast<smig_session_state>(shared_.state.load())) +
                                     "); the module has undone the stop");
        tell_agent(report_.get(), outcome, shared_);
        report_.reset();
    }

    // Answers on the control port: for ever when given, for a while when rolled back.
    void serve(smig_session_state state) {
        const bool owes = shared_.owed_pages > 0;
        SourceMachine machine = SourceMachine::adopt(state, shared_.epoch, shared_.boot_nonce, owes);
        ControlPort port(std::move(listener_), {});
        OwedServer owed(plan_.transfer, PushWindow(2 * plan_.land.clock_error_ns, 0));
        CallerService callers(port, shared_, *plan_.power, plan_.keep_source, owed);
        if (state == SMIG_SOURCE_GIVEN) plan_.power->forbid_restart();
        smig_info info{};
        if (owes) (void)device_->info(info);
        std::vector<pollfd> polled;
        const std::int64_t until = state == SMIG_SOURCE_GIVEN ? kNever : mono_ms() + kVoidServiceMs;
        while (mono_ms() < until) {
            std::int64_t patience = kWatchMs;
            if (owes && state == SMIG_SOURCE_GIVEN) {
                const OwedServer::Known known{shared_.owed_pages, Pfn{info.top_pfn}};
                const std::int64_t due = owed.begun()                 ? owed.service()
                                         : owed.list(*device_, known) ? 0
                                                                      : kWatchMs;
                patience = std::min(patience, due);
            }
            polled.clear();
            port.add_to(polled);
            owed.add_to(polled);
            if (::poll(polled.data(), polled.size(), static_cast<int>(patience)) <= 0) continue;
            for (const SourceEvent& event : port.service())
                for (const SourceAction& action : machine.on(event, mono_ms()))
                    callers.perform(action, machine);
        }
    }

    [[nodiscard]] bool owes() {
        smig_status status{};
        return device_->status(status).ok() && status.state == SMIG_STATE_OWING;
    }

    void be_clone(CloneAt at) {
        // What the stop process had measured died with it.
        MoveOutcome outcome;
        CloneStart start{*device_,
                         std::string_view(shared_.handover, shared_.handover_length),
                         plan_.network,
                         plan_.holds,
                         {},
                         outcome,
                         [&] {
                             device_.reset();
                             tell_agent(report_.get(), outcome, shared_);
                         },
                         [&](std::uint64_t left) {
                             shared_.state = SMIG_CLONE_OWING;
                             shared_.owed_left = left;
                         },
                         at};
        // Without a hand-over the clone has never asked, so the source cannot have given: a reset is safe.
        while (shared_.handover_length == 0 || !plan_.clone_main(start)) {
            plan_.power->reset();
            ::poll(nullptr, 0, 1000);
        }
    }

    StopPlan& plan_;
    SharedState& shared_;
    Fd stop_process_;
    Fd listener_;
    Fd report_;
    std::unique_ptr<Device> device_;
    bool alive_ = true;
    bool was_clone_ = false;
    bool was_late_ = false;
    std::int64_t late_since_ms_ = 0;
    std::int64_t clone_since_ms_ = mono_ms();
};

}  // namespace

int run_supervisor(StopPlan& plan, Fd stop_process, Fd listener, Fd report) {
    return Supervisor(plan, std::move(stop_process), std::move(listener), std::move(report)).run();
}

}  // namespace smig
