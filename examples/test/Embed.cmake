# Runs the example on a synthetic package. The same tokens have to come from
# kvrm-run.
include(${CMAKE_CURRENT_LIST_DIR}/Example.cmake)

run(${PREFIX}/bin/kvrmc synth --quiet -o ${WORK}/synth.kvrm)

run(${WORK}/build/embed ${WORK}/synth.kvrm 5 6 7)
string(STRIP "${output}" embedded)
if(NOT embedded MATCHES "^[0-9]+( [0-9]+)+$")
  message(FATAL_ERROR "embed printed '${embedded}', not 8 token ids")
endif()
run(${PREFIX}/bin/kvrm-run generate ${WORK}/synth.kvrm --token-ids 5,6,7
    --max-tokens 8 --ignore-eos --json)
string(JSON ids GET "${output}" requests 0 tokens)
string(REGEX MATCHALL "[0-9]+" ids "${ids}")
list(JOIN ids " " ids)
if(NOT embedded STREQUAL ids)
  message(FATAL_ERROR "embed printed '${embedded}', kvrm-run '${output}'")
endif()

# What is wrong has to be said in one line, with status 1.
execute_process(COMMAND ${WORK}/build/embed ${WORK}/none.kvrm
                OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
if(NOT status EQUAL 1 OR NOT output MATCHES "^embed: error: [^\n]*none.kvrm[^\n]*\n$")
  message(FATAL_ERROR "embed with no package: ${status}, '${output}'")
endif()
