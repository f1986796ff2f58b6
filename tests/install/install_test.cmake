# cmake -DBUILD=.. -DSOURCE=.. -DCONFIG=.. -DGENERATOR=.. -DCOMPILER=.. -DFLAGS=.. -DBINDIR=.. -P install_test.cmake
set(work ${BUILD}/install_test)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})

function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${what} failed (${code}):\n${output}")
  endif()
  message(STATUS "${what}: done")
  set(output "${output}" PARENT_SCOPE)
endfunction()

step("installing" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix} --config ${CONFIG})

set(flags "")
if(FLAGS)
  set(flags "-DCMAKE_CXX_FLAGS=-fsanitize=${FLAGS}")
endif()
step("configuring the consumer" ${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer -B ${work}/consumer -G ${GENERATOR}
     -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=${CONFIG} -DCMAKE_PREFIX_PATH=${prefix} ${flags})
step("building the consumer" ${CMAKE_COMMAND} --build ${work}/consumer --config ${CONFIG})

set(plait ${prefix}/${BINDIR}/plait)
step("making a model with the installed program" ${plait} new ${SOURCE}/tests/cli/cards/small.json ${work}/small.h5
     --seed 1)
step("running the consumer" ${work}/consumer/consumer ${work}/small.h5)
if(NOT output MATCHES "position 6, 256 logits")
  message(FATAL_ERROR "the consumer printed: ${output}")
endif()

if(EXISTS ${SOURCE}/weights/models/tiny-hybrid.h5)
  step("running the installed bundled model" ${plait} run --prompt "ROMEO:" -n 20 --seed 1 --quiet)
endif()
