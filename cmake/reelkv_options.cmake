# Every build option, once.
set(REELKV_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined or thread")
option(REELKV_WERROR "Treat warnings as errors (the developer presets do)" OFF)
option(REELKV_FUZZ "Build the targets of tests/fuzz with libFuzzer (needs clang)" OFF)
option(REELKV_COVERAGE "Count which lines and branches run (gcc's gcov)" OFF)
option(REELKV_CUDA "Build the CUDA tensor backend (needs nvcc)" OFF)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
