// Failures that tests ask for.
//
// STANDIN_FAIL is a list of rules with commas between, each of one of the forms
//   launch:KERNEL:N:CODE   the Nth run of a kernel (* for any) since the variable was set to this value fails with the
//                          result CODE: whoever synchronises next is told, and so is every later call
//   call:FUNCTION:N:CODE   the Nth call of a driver function answers CODE and does nothing
// N counts from 1; 0 stands for every one.
#pragma once

// failure_of_call and failure_of_launch count one call or launch and are the result it shall fail with, else 0.
int failure_of_call(const char* function);
int failure_of_launch(const char* kernel);
