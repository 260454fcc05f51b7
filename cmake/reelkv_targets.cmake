# The four kinds of target this project has, so that a leaf CMakeLists.txt reads as lists.

add_library(reelkv_flags INTERFACE)
target_compile_definitions(reelkv_flags INTERFACE _GNU_SOURCE)
target_compile_options(reelkv_flags INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
  -Wno-unused-parameter -fno-strict-aliasing -ffp-contract=off)
if(REELKV_WERROR)
  target_compile_options(reelkv_flags INTERFACE -Werror)
endif()
if(REELKV_COVERAGE)
  target_compile_definitions(reelkv_flags INTERFACE REELKV_COVERAGE)
  target_compile_options(reelkv_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(reelkv_flags INTERFACE --coverage)
  set(REELKV_TIMEOUT_TIMES 5) # counting takes time, and a test that is killed has counted nothing
else()
  set(REELKV_TIMEOUT_TIMES 1)
endif()
if(REELKV_SANITIZE)
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # GCC 12's flow-based warnings misread instrumented code; the uninstrumented presets have them as errors.
    target_compile_options(reelkv_flags INTERFACE
      -Wno-format-overflow -Wno-format-truncation -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds)
  endif()
  target_compile_options(reelkv_flags INTERFACE -fsanitize=${REELKV_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(reelkv_flags INTERFACE -fsanitize=${REELKV_SANITIZE})
endif()

if(REELKV_FUZZ)
  target_compile_options(reelkv_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# reelkv_library(base SOURCES a.c b.c USES x y USES_PRIVATE z)
#   -> static library reelkv_base; headers are included as "base/a.h" from lib/.
function(reelkv_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;USES;USES_PRIVATE")
  add_library(reelkv_${name} STATIC ${arg_SOURCES})
  target_include_directories(reelkv_${name} PUBLIC "${PROJECT_SOURCE_DIR}/lib")
  target_link_libraries(reelkv_${name} PUBLIC ${arg_USES} PRIVATE reelkv_flags ${arg_USES_PRIVATE})
endfunction()

# reelkv_service(kvstore SOURCES ... USES ...)
#   -> static library reelkv_kvstore_core (all but main.c, for tests) and executable reelkv-kvstore.
function(reelkv_service name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;USES;USES_PRIVATE")
  add_library(reelkv_${name}_core STATIC ${arg_SOURCES})
  target_include_directories(reelkv_${name}_core PUBLIC "${PROJECT_SOURCE_DIR}/services")
  target_link_libraries(reelkv_${name}_core PUBLIC ${arg_USES} PRIVATE reelkv_flags ${arg_USES_PRIVATE})
  reelkv_program(reelkv-${name} SOURCES main.c USES reelkv_${name}_core)
endfunction()

# reelkv_program(reelkv SOURCES ... USES ...): an installed executable, all of them in build/*/bin.
function(reelkv_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;USES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE reelkv_flags ${arg_USES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
  install(TARGETS ${name} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endfunction()

# reelkv_test(status_test USES reelkv_base LABELS unit [TIMEOUT 60] [SOURCES extra.c] [ENV A=b])
#   -> executable from status_test.c, run by ctest. Exit code 77 means skipped.
function(reelkv_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;USES;LABELS;ENV")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  math(EXPR arg_TIMEOUT "${REELKV_TIMEOUT_TIMES} * ${arg_TIMEOUT}")
  add_executable(${name} ${name}.c ${arg_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests" "${PROJECT_SOURCE_DIR}/services")
  target_link_libraries(${name} PRIVATE reelkv_flags reelkv_test_support ${arg_USES})
  target_compile_definitions(${name} PRIVATE
    REELKV_SOURCE_DIR="${PROJECT_SOURCE_DIR}" REELKV_BIN_DIR="${PROJECT_BINARY_DIR}/bin")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77 ENVIRONMENT "${arg_ENV}")
endfunction()

# reelkv_script_test(layout_test COMMAND sh x.sh LABELS layout [TIMEOUT 60])
function(reelkv_script_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "COMMAND;LABELS;ENV")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  math(EXPR arg_TIMEOUT "${REELKV_TIMEOUT_TIMES} * ${arg_TIMEOUT}")
  add_test(NAME ${name} COMMAND ${arg_COMMAND})
  set_tests_properties(${name} PROPERTIES
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77 ENVIRONMENT "${arg_ENV}")
endfunction()
