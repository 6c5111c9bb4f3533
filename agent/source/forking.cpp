// SPDX-License-Identifier: Apache-2.0
#include "agent/source/forking.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "agent/source/supervisor.hpp"

namespace smig {

namespace {

// Closes every descriptor but standard input, output, error and these.
void keep_only(std::vector<int> kept) {
    std::ranges::sort(kept);
    unsigned from = 3;
    for (const int fd : kept) {
        const auto number = static_cast<unsigned>(fd);
        if (number > from) ::syscall(SYS_close_range, from, number - 1, 0);
        from = std::max(from, number + 1);
    }
    ::syscall(SYS_close_range, from, ~0u, 0);
}

// Nothing a terminal, a parent or a service manager does may end the move.
void detach(const char* name) {
    ::prctl(PR_SET_NAME, name);
    ::signal(SIGCHLD, SIG_DFL);
    for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM}) ::signal(number, SIG_IGN);
}

}  // namespace

Result<Fd> fork_stop_and_supervisor(StopPlan& plan, StopConnection connection, Fd listener) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error(Remedy::fatal, "pipe");
    Fd report_out(ends[0]);
    Fd report_in(ends[1]);

    const pid_t stop = ::fork();
    if (stop < 0) return errno_error(Remedy::fatal, "fork");
    if (stop == 0) {
        detach("smig-stop");
        keep_only({connection.socket.get(), listener.get(), report_in.get()});
        ::_exit(run_stop_process(plan, std::move(connection), std::move(listener), std::move(report_in)));
    }
    Fd stop_process(static_cast<int>(::syscall(SYS_pidfd_open, stop, 0)));
    if (!stop_process) {
        const Error error = errno_error(Remedy::fatal, "pidfd_open");
        ::kill(stop, SIGKILL);
        return error;
    }
    const pid_t supervisor = ::fork();
    if (supervisor < 0) {
        const Error error = errno_error(Remedy::fatal, "fork");
        ::kill(stop, SIGKILL);
        return error;
    }
    if (supervisor == 0) {
        detach("smig-supervisor");
        keep_only({stop_process.get(), listener.get(), report_in.get()});
        ::_exit(run_supervisor(plan, std::move(stop_process), std::move(listener), std::move(report_in)));
    }
    return report_out;
}

}  // namespace smig
