// SPDX-License-Identifier: Apache-2.0
// Two machines, one guest, and everything that can happen to them: the production state machines of source,
// target and clone with fake modules, a clock that a test turns and a wire that is cut, with chance from one
// seed.
//
// After every step the world asks who runs the guest.  The first broken rule is kept as `violation`.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/peer/clone_machine.hpp"
#include "agent/peer/machine.hpp"
#include "agent/peer/owed_machine.hpp"
#include "agent/source/machine.hpp"
#include "agent/source/owed_dispatch.hpp"
#include "tests/sim/network.hpp"

namespace smig::sim {

// Chances, each per step of the world.
struct Faults {
    double cut_wire = 0;
    double heal_wire = 0;
    double corrupt = 0;  // per frame
    double kill_stop_process = 0;
    double kill_supervisor = 0;
    double kill_target_agent = 0;
    double kill_target_vm = 0;
    double cancel = 0;
    double switch_now = 0;    // per pass
    double device_fails = 0;  // per call
    double jump_hangs = 0;    // per jump
    double clone_sleeps = 0;  // per jump: wakes only after a minute
    double owes = 0;          // per stop: pages stay owed
    double kill_clone_process = 0;
    double guest_frees = 0;  // per page that is missing when it is touched
};

// Rules of the code that a test breaks, to see that the world notices.
enum class Sabotage {
    none,
    go_before_commit,        // the source says GO and commits later
    clone_trusts_silence,    // the clone runs the guest when nobody answers
    supervisor_thaws_given,  // after the stop process's death the guest is thawed though it was given
    rollback_without_thaw,   // the source says it has rolled back, and leaves the guest frozen
    stale_stop_image,        // the stop sends nothing of what changed since the last pass
    forgets_owed,            // the supervisor that takes over knows of no owed pages
    drained_early,           // the clone says DRAINED while pages are missing
    stale_owed_page,         // the source sends another page than was asked for
};

class World {
public:
    World(std::uint64_t seed, const Faults& faults, Sabotage sabotage = Sabotage::none);
    ~World();

    // One try to move the guest; steps until nothing of it is left to happen or `most_ms` have passed.
    void move(std::int64_t most_ms);
    // From here on nothing fails; what was cut is whole again, dead target agents are started.
    void make_peace();
    void run_for(std::int64_t ms);

    [[nodiscard]] const std::string& violation() const { return violation_; }
    [[nodiscard]] bool guest_on_source() const { return guest_on_source_; }
    [[nodiscard]] bool guest_on_clone() const { return guest_on_clone_; }
    [[nodiscard]] bool given() const { return given_; }
    // Somebody on the source can still answer a clone.
    [[nodiscard]] bool source_answers() const;
    [[nodiscard]] bool clone_waits() const;
    // Of the guest that runs on the clone: pages that are still on the source, and waits for them.
    [[nodiscard]] std::size_t missing() const { return missing_.size(); }
    [[nodiscard]] std::size_t owed_ever() const { return owed_.size(); }
    [[nodiscard]] std::size_t guest_waits() const { return waited_.size(); }
    [[nodiscard]] bool source_finished() const;
    // A landing environment waits for a source.
    [[nodiscard]] bool receiving() const { return receiving_ && target_vm_up_; }
    [[nodiscard]] bool supervisor_took_over() const;
    [[nodiscard]] bool target_vm_was_lost() const { return target_vm_lost_; }
    [[nodiscard]] std::int64_t now() const { return time_.now(); }
    // What happened, a line each.
    [[nodiscard]] const std::vector<std::string>& log() const { return log_; }

private:
    struct Attempt;
    struct Target;
    struct Clone;
    using ConnectionPtr = std::shared_ptr<Connection>;

    ConnectionPtr connect(std::size_t most_payload = 1 << 14);
    void say(const std::string& text);
    void break_rule(const std::string& text);
    void check();
    void stir();

    // Source.
    void feed(Attempt& attempt, const SourceEvent& event);
    void perform(Attempt& attempt, const SourceAction& action);
    void put(Attempt& attempt, smig_wire_type type, const Bytes& payload);
    void put_page(Attempt& attempt, std::uint64_t page);
    void prepare(Attempt& attempt);
    void pass(Attempt& attempt);
    void send_image(Attempt& attempt);
    void do_stop(Attempt& attempt);
    void do_commit(Attempt& attempt);
    void on_source_frame(Attempt& attempt, const Frame& frame);
    void on_caller_frame(Attempt& attempt, int caller, const Frame& frame);
    void watch_deadline(Attempt& attempt);
    void kill_stop_process(Attempt& attempt);
    void supervise(Attempt& attempt);
    void answer(Attempt& attempt, int caller, smig_wire_type type);

    // Owed pages, the source's half and the clone's.
    void begin_serving(Attempt& attempt);
    void serve_owed(Attempt& attempt, const SourceAction& action);
    void pump(Attempt& attempt);
    void send_owed(Attempt& attempt, smig_wire_owed_role role, const OwedBatch& batch);
    void on_owed_request(Attempt& attempt, smig_wire_owed_role role, const Frame& frame);
    void fetch_owed(Clone& clone);
    void perform(Clone& clone, const OwedActions& actions);
    void perform(Clone& clone, const OwedAction& action);
    void connect_owed(Clone& clone, smig_wire_owed_role role);
    void on_owed_pages(Clone& clone, smig_wire_owed_role role, const Frame& frame);
    void watch_owed(Clone& clone);
    void end_owed_phase(Clone& clone);
    void touch();
    void kill_clone_process();
    [[nodiscard]] std::shared_ptr<Attempt> attempt_of(const Clone& clone) const;

    // Target and clone.
    void accept(const ConnectionPtr& connection);
    void feed(Target& target, const TargetEvent& event, const Frame* frame);
    void perform(Target& target, TargetDo action, const Frame* frame);
    void on_target_frame(Target& target, const Frame& frame);
    void watch_deadline(Target& target);
    void jump(Target& target);
    void feed(Clone& clone, const CloneEvent& event);
    void perform(Clone& clone, CloneDo action);
    void on_clone_frame(Clone& clone, const Frame& frame);
    void watch_deadline(Clone& clone);
    void lose_target_agent();
    void lose_target_vm();

    Timeline time_;
    Faults faults_;
    Sabotage sabotage_;
    Wire wire_;
    std::vector<ConnectionPtr> connections_;
    std::vector<std::shared_ptr<Attempt>> attempts_;
    std::shared_ptr<Target> target_;
    std::shared_ptr<Clone> clone_;
    WireId nonce_{};
    bool target_vm_up_ = true;
    bool target_vm_lost_ = false;
    bool receiving_ = true;  // an agent listens in the landing environment
    bool source_vm_up_ = true;
    bool guest_on_source_ = true;
    bool guest_on_clone_ = false;
    bool given_ = false;                           // the source's module says so
    std::array<std::uint64_t, 3> memory_{};        // of the guest: three pages, which it writes while it runs
    std::map<std::uint64_t, std::uint64_t> owed_;  // at the capture: page, its contents
    std::set<std::uint64_t> missing_;              // on the clone
    std::set<std::uint64_t> waited_;               // of these; somebody waits
    std::vector<std::uint64_t> announced_;         // and nobody has read it yet
    std::map<std::uint64_t, int> installs_;
    std::string violation_;
    std::vector<std::string> log_;
};

}  // namespace smig::sim
