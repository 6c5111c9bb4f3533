// SPDX-License-Identifier: Apache-2.0
// `selfmigrate status`, `cancel` and `switch-now`: one order to the agent of the move that is under way.
#pragma once

namespace smig {

int status_command(int argc, const char* const* argv);
int cancel_command(int argc, const char* const* argv);
int switch_now_command(int argc, const char* const* argv);

}  // namespace smig
