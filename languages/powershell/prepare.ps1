# Compiles what PowerShell itself has no words for: the worker does without where this fails.
try {
    Add-Type -Namespace Dispatch -Name Descriptor -OutputAssembly (Join-Path $PWD 'descriptor.dll') -MemberDefinition @'
[System.Runtime.InteropServices.DllImport("libc", SetLastError = true)]
public static extern int fcntl(int descriptor, int command, int argument);
'@
} catch {
    Write-Host "child processes of functions will see the worker's socket: $_"
}
exit 0
