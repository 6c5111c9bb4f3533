# SPDX-License-Identifier: Apache-2.0
# Writes OUTPUT: version_text() with what git says of SOURCE_DIR.
execute_process(COMMAND git -C ${SOURCE_DIR} describe --tags --always --dirty --abbrev=12
                OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT described)
  set(described "unknown")
endif()
set(text "// Generated.\n#include \"agent/base/version.hpp\"\n\nnamespace smig {\nconst char* version_text() { return \"${described}\"; }\n}  // namespace smig\n")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
