# Says which PowerShell this is, and where the rest of it stands.
set -eu
export DOTNET_EnableWriteXorExecute=0 DOTNET_EnableDiagnostics=0 POWERSHELL_TELEMETRY_OPTOUT=1 POWERSHELL_UPDATECHECK=Off
exec "$1" -NoLogo -NoProfile -NonInteractive -Command '
$version = $PSVersionTable.PSVersion
if ($version -lt [version] "7.2") { exit 1 }
$numbers = "{0}.{1}.{2}" -f $version.Major, $version.Minor, $version.Patch
ConvertTo-Json -Compress @{ executable = "$PSHOME/pwsh"; version = $numbers; prefixes = @($PSHOME) }
'
