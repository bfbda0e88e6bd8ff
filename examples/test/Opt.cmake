# Pages examples/decoder.mlir with the out-of-tree mlir-opt, and through the C
# API. FileCheck compares both with paged.check.
include(${CMAKE_CURRENT_LIST_DIR}/Example.cmake)

set(check ${LLVM_TOOLS}/FileCheck ${CMAKE_CURRENT_LIST_DIR}/paged.check)
set(decoder ${SOURCE}/../decoder.mlir)

run(${WORK}/build/my-opt ${decoder} --kvrm-page-cache --kvrm-merge-transport
    --count-appends -o ${WORK}/opt.mlir)
if(NOT output MATCHES "remark: appends to 2 layers\n")
  message(FATAL_ERROR "my-opt printed '${output}'")
endif()
run(${check} --input-file=${WORK}/opt.mlir)

run(${WORK}/build/page ${decoder})
file(WRITE ${WORK}/page.mlir "${output}")
run(${check} --input-file=${WORK}/page.mlir)

# What is wrong has to be said, with status 1.
execute_process(COMMAND ${WORK}/build/page ${WORK}/opt.mlir.none
                OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
if(NOT status EQUAL 1 OR NOT output MATCHES "opt.mlir.none")
  message(FATAL_ERROR "page with no graph: ${status}, '${output}'")
endif()
