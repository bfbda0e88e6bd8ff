# A project in C alone cannot link the libraries, which are C++: find_package()
# says so in one line, and what to do.
cmake_minimum_required(VERSION 3.24)

file(REMOVE_RECURSE ${WORK})
file(WRITE ${WORK}/CMakeLists.txt "
cmake_minimum_required(VERSION 3.24)
project(c LANGUAGES C)
find_package(KVRM 0.1 REQUIRED)
")
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${WORK} -B ${WORK}/build -G ${GENERATOR}
          -DCMAKE_PREFIX_PATH=${PREFIX} -DCMAKE_C_COMPILER=${C_COMPILER}
  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
if(status EQUAL 0 OR NOT output MATCHES "enable CXX")
  message(FATAL_ERROR "a project in C: ${status}, '${output}'")
endif()
